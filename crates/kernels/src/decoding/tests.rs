//! Steps are compared with attention over the keys of each row, on flex.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};

use super::{Decoding, NewestToken};
use crate::devices::{self, rounded};
use crate::{Rows, Scores, attention_reference, rope_reference};

/// Sizes of a case: N, K, D, R/2.
type Sizes = [usize; 4];

/// Places of the cache.
const PLACES: usize = 160;

fn random(shape: [usize; 3], dtype: DType) -> Tensor<3> {
    let values = Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
    if dtype == DType::BF16 {
        rounded(&values)
    } else {
        values
    }
}

fn moved<const D: usize>(of: &Tensor<D>, dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::from_data(of.to_data().convert_dtype(dtype), (device, dtype))
}

/// A table of angles for all positions, `[C, R/2]`.
fn angles(half: usize, device: &Device) -> [Tensor<2>; 2] {
    let values = (0..PLACES * half).map(|i| (i / half) as f32 * 0.7 / (1 + i % half) as f32);
    let data = TensorData::new(values.collect::<Vec<f32>>(), [PLACES, half]);
    let angles = Tensor::<2>::from_data(data, device);
    [angles.clone().cos(), angles.sin()]
}

/// Two steps of three rows, whose keys lie apart and overlap in a prefix.
fn compare(dtype: DType, [heads, key_heads, dim, half]: Sizes, scores: Scores) {
    let device = match devices::all().pop() {
        Some(device) if device != Device::flex() => device,
        _ => panic!("a build with libtorch has a device of it"),
    };
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "a list with one range, not a range to be expanded"
    )]
    let start = [
        vec![0..1],
        vec![0..20, 30..37],
        vec![0..20, 40..104, 110..130],
    ];
    let q = random([3, heads, dim], dtype);
    let [k, v] = [0; 2].map(|_| random([3, key_heads, dim], dtype));
    let mut cache = [0; 2].map(|_| random([PLACES, key_heads, dim], dtype));
    let there = |of: &Tensor<3>| moved(of, dtype, &device);
    let [tq, tk, tv] = [&q, &k, &v].map(there);
    let rooms = cache.each_ref().map(there);
    let tables = angles(half.max(1), &Device::flex());
    let rotary = tables.each_ref().map(|of| moved(of, DType::F32, &device));

    let mut keys = start.clone();
    let next: Vec<NewestToken<'_>> = start
        .iter()
        .map(|keys| NewestToken { token: 0, keys })
        .collect();
    let mut steps = Decoding::new(&next, PLACES, heads * dim, &device);
    let Some(steps) = &mut steps else {
        panic!("a device of libtorch has steps");
    };
    for step in 0..2 {
        if step == 1 {
            for (row, keys) in keys.iter_mut().enumerate() {
                let place = 140 + row;
                keys.push(place..place + 1);
            }
        }
        let next = keys.iter().map(|keys| NewestToken { token: 7, keys });
        let next: Vec<NewestToken<'_>> = next.collect();
        let found = steps.run(&next, &mut |step| {
            let rotary = rotary
                .clone()
                .map(|table| table.select(0, step.positions()));
            let rotary = (half > 0).then_some(rotary);
            let qkv = [&tq, &tk, &tv].map(Clone::clone);
            let y = step.attend(qkv, rotary, rooms.clone(), scores);
            y.reshape([3, heads * dim]).cast(DType::F32)
        });
        let found = TensorData::new(found.to_vec(), [3, heads, dim]);

        // the same with what is known of the rows here
        let positions: Vec<i64> = next.iter().map(|token| token.position() as i64).collect();
        let positions = Tensor::<1, Int>::from_data(&positions[..], &Device::flex());
        let [cos, sin] = tables
            .clone()
            .map(|table| table.select(0, positions.clone()));
        let rotate = |of: &Tensor<3>| {
            if half == 0 {
                return of.clone();
            }
            let of = rope_reference(of.clone(), cos.clone(), sin.clone());
            if dtype == DType::BF16 {
                rounded(&of)
            } else {
                of
            }
        };
        for (cache, new) in cache.iter_mut().zip([rotate(&k), v.clone()]) {
            for (row, token) in next.iter().enumerate() {
                let new = new.clone().slice_dim(0, row..row + 1);
                let place = token.place();
                *cache = cache
                    .clone()
                    .slice_assign([place..place + 1, 0..key_heads, 0..dim], new);
            }
        }
        let rows = Rows::seeing(keys.iter().map(|keys| (1, keys.clone())), PLACES);
        let [keys, values] = cache.clone();
        let expected = attention_reference(rotate(&q), keys, values, &rows, scores).into_data();
        // rounded are scores of order ten, on which an exponential depends, its weight and the sum; as in the tests of attention
        let roundings = if dtype == DType::BF16 { 12.0 } else { 0.01 };
        devices::assert_near(&found, &expected, roundings, devices::largest(&expected));
    }
    assert_eq!(
        steps.not_recorded().is_none(),
        devices::torch().is_cuda(),
        "{:?}",
        steps.not_recorded()
    );
}

#[test]
fn steps_see_the_keys_of_their_rows() {
    let plain = Scores::scaled(0.3);
    let window = Scores {
        window: Some(25),
        ..plain
    };
    let both = Scores {
        soft_cap: Some(3.0),
        ..window
    };
    for dtype in [DType::F32, DType::BF16] {
        for (sizes, scores) in [
            ([4, 1, 128, 64], plain),
            ([6, 2, 64, 16], window),
            ([2, 2, 8, 4], both),
            ([2, 2, 96, 0], plain),
            ([5, 1, 6, 3], both),
            ([4, 2, 256, 128], window),
        ] {
            compare(dtype, sizes, scores);
        }
    }
}
