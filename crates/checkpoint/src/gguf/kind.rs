//! The tensor types of ggml.

use std::fmt;

/// A tensor type of ggml: blocks with a fixed number of elements and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GgmlType {
    number: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

macro_rules! types {
    ($($name:ident = $number:literal, $len:literal in $bytes:literal;)*) => {
        impl GgmlType {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $len, " elements in ", $bytes, " bytes.")]
                pub const $name: Self = Self {
                    number: $number,
                    name: stringify!($name),
                    block_len: $len,
                    block_bytes: $bytes,
                };
            )*

            /// All types that a file can hold.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

types! {
    F32 = 0, 1 in 4;
    F16 = 1, 1 in 2;
    Q4_0 = 2, 32 in 18;
    Q4_1 = 3, 32 in 20;
    Q5_0 = 6, 32 in 22;
    Q5_1 = 7, 32 in 24;
    Q8_0 = 8, 32 in 34;
    Q8_1 = 9, 32 in 36;
    Q2_K = 10, 256 in 84;
    Q3_K = 11, 256 in 110;
    Q4_K = 12, 256 in 144;
    Q5_K = 13, 256 in 176;
    Q6_K = 14, 256 in 210;
    Q8_K = 15, 256 in 292;
    IQ2_XXS = 16, 256 in 66;
    IQ2_XS = 17, 256 in 74;
    IQ3_XXS = 18, 256 in 98;
    IQ1_S = 19, 256 in 50;
    IQ4_NL = 20, 32 in 18;
    IQ3_S = 21, 256 in 110;
    IQ2_S = 22, 256 in 82;
    IQ4_XS = 23, 256 in 136;
    I8 = 24, 1 in 1;
    I16 = 25, 1 in 2;
    I32 = 26, 1 in 4;
    I64 = 27, 1 in 8;
    F64 = 28, 1 in 8;
    IQ1_M = 29, 256 in 56;
    BF16 = 30, 1 in 2;
    TQ1_0 = 34, 256 in 54;
    TQ2_0 = 35, 256 in 66;
    MXFP4 = 39, 32 in 17;
    NVFP4 = 40, 64 in 36;
    Q1_0 = 41, 128 in 18;
    Q2_0 = 42, 64 in 18;
}

impl GgmlType {
    /// The type with this number in ggml.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.number == number)
    }

    /// The name of a type that was removed from ggml.
    pub(super) fn removed(number: u32) -> Option<&'static str> {
        Some(match number {
            4 => "Q4_2",
            5 => "Q4_3",
            31 => "Q4_0_4_4",
            32 => "Q4_0_4_8",
            33 => "Q4_0_8_8",
            36 => "IQ4_NL_4_4",
            37 => "IQ4_NL_4_8",
            38 => "IQ4_NL_8_8",
            _ => return None,
        })
    }

    /// Its number in ggml.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Its name in ggml.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Elements per block; a row consists of whole blocks.
    pub fn block_len(self) -> usize {
        self.block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.block_bytes
    }

    /// Bytes of a tensor; `shape` has the outermost dimension first.
    ///
    /// `None` if a row does not consist of whole blocks, or the size overflows.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<u64> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len) {
            return None;
        }
        // zeros are skipped, so that an overflow does not depend on the order of the sizes
        let mut sizes = shape.iter().filter(|&&size| size != 0);
        let numbers = sizes.try_fold(1usize, |product, &size| product.checked_mul(size))?;
        if shape.contains(&0) {
            return Some(0);
        }
        let bytes = (numbers / self.block_len).checked_mul(self.block_bytes)?;
        isize::try_from(bytes).ok().map(|_| bytes as u64)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_bytes_are_counted() {
        for kind in GgmlType::ALL {
            assert_eq!(GgmlType::from_number(kind.number()), Some(*kind));
            assert_eq!(GgmlType::removed(kind.number()), None);
        }
        assert_eq!(GgmlType::Q4_K.tensor_bytes(&[3, 512]), Some(3 * 2 * 144));
        assert_eq!(GgmlType::F32.tensor_bytes(&[]), Some(4));
        assert_eq!(GgmlType::Q8_0.tensor_bytes(&[32, 33]), None);
        assert_eq!(GgmlType::F32.tensor_bytes(&[1 << 40, 1 << 40]), None);
        assert_eq!(GgmlType::F32.tensor_bytes(&[1 << 61]), None);
        assert_eq!(GgmlType::F32.tensor_bytes(&[3, 0]), Some(0));
        assert_eq!(GgmlType::F32.tensor_bytes(&[1 << 40, 1 << 40, 0]), None);
    }
}
