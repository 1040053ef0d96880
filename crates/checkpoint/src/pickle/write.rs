//! Writes the pickle of a state dict like `torch.save`, without the memo.

use super::tensor::STORAGES;
use crate::TensorSpec;

/// The pickle of contiguous tensors, each the whole of a storage whose key is its place in the list;
/// `None` for a dtype that torch has no storage for.
pub(crate) fn state_dict(tensors: &[TensorSpec]) -> Option<Vec<u8>> {
    let mut pickle = b"\x80\x02".to_vec();
    ordered_dict(&mut pickle);
    pickle.push(b'(');
    for (key, tensor) in tensors.iter().enumerate() {
        text(&mut pickle, &tensor.name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        storage(&mut pickle, key, tensor)?;
        integer(&mut pickle, 0);
        let mut strides = vec![1; tensor.shape.len()];
        for place in (1..strides.len()).rev() {
            strides[place - 1] = strides[place] * tensor.shape[place].max(1);
        }
        sizes(&mut pickle, &tensor.shape);
        sizes(&mut pickle, &strides);
        // requires_grad = False, no hooks
        pickle.push(0x89);
        ordered_dict(&mut pickle);
        pickle.extend(b"tR");
    }
    pickle.extend(b"u.");
    Some(pickle)
}

fn storage(pickle: &mut Vec<u8>, key: usize, tensor: &TensorSpec) -> Option<()> {
    let (_, name) = STORAGES.iter().find(|(dtype, _)| *dtype == tensor.dtype)?;
    pickle.push(b'(');
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{name}\n").bytes());
    text(pickle, &key.to_string());
    text(pickle, "cpu");
    integer(pickle, tensor.shape.iter().product());
    pickle.extend(b"tQ");
    Some(())
}

fn ordered_dict(pickle: &mut Vec<u8>) {
    pickle.extend(b"ccollections\nOrderedDict\n)R");
}

fn sizes(pickle: &mut Vec<u8>, sizes: &[usize]) {
    pickle.push(b'(');
    for &size in sizes {
        integer(pickle, size);
    }
    pickle.push(b't');
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn integer(pickle: &mut Vec<u8>, integer: usize) {
    if let Ok(small) = u8::try_from(integer) {
        pickle.extend([b'K', small]);
    } else if let Ok(int) = i32::try_from(integer) {
        pickle.push(b'J');
        pickle.extend(int.to_le_bytes());
    } else {
        pickle.extend([0x8a, 8]);
        pickle.extend((integer as i64).to_le_bytes());
    }
}
