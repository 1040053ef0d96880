use simmer_checkpoint::Bytes;

use super::*;

fn tensor(shape: &[usize], value: f32) -> Tensor {
    let values = vec![value; shape.iter().product()];
    Tensor {
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: Bytes::from(
            values
                .into_iter()
                .flat_map(f32::to_le_bytes)
                .collect::<Vec<u8>>(),
        ),
    }
}

/// A checkpoint with `rows` prompts, and gates of these values in the layers from `first` on.
fn stored(rows: usize, first: usize, gates: &[f32], shape: &[usize]) -> Vec<(String, Tensor)> {
    let gates = gates.iter().enumerate();
    let gates = gates.map(|(at, value)| (gate_key(first + at), tensor(shape, *value)));
    gates
        .chain([(QUERY.to_owned(), tensor(&[rows, 4], 1.0))])
        .collect()
}

/// P and L, and the layer of the first prompts.
fn found(tensors: Vec<(String, Tensor)>, prompts: Option<usize>) -> (usize, usize, String) {
    let found = read(Path::new("a.pth"), tensors, prompts).unwrap();
    let config = found.config;
    let key = found.tensors[0].0.clone();
    (config.adapter_len, config.adapter_layers, key)
}

#[test]
fn the_prompts_of_a_layer_follow_from_the_trained_gates() {
    let heads = [1, 2, 1, 1];
    let key = |layer| format!("base_model.model.model.layers.{layer}.self_attn.adaption_gate");
    let trained = stored(6, 0, &[0.0, 0.1, -0.2], &heads);
    assert_eq!(found(trained, None), (3, 2, key(1)));
    // the gates below are not in the file
    assert_eq!(
        found(stored(6, 1, &[0.0, 0.1], &heads), None),
        (3, 2, key(1))
    );
    // not trained: as the original's code for inference takes it
    assert_eq!(
        found(stored(20, 0, &[0.0; 3], &heads), None),
        (10, 2, key(1))
    );
    assert_eq!(
        found(stored(6, 0, &[0.0; 3], &heads), Some(6)),
        (6, 1, key(2))
    );
    let one = read(Path::new("a.pth"), stored(6, 0, &[0.1, 0.1], &[1]), None).unwrap();
    assert_eq!(*one.config.kind, ADAPTION_PROMPT);
    assert_eq!(one.tensors[0].1.shape, [1]);
}

#[test]
fn what_the_first_version_does_not_have_is_named() {
    let said = |tensors, prompts| {
        let error = read(Path::new("a.pth"), tensors, prompts).err().unwrap();
        error.to_string()
    };
    let heads = [1, 2, 1, 1];
    let mut second = stored(6, 0, &[0.1, 0.1], &heads);
    second.push(("layers.0.attention.wq.bias".to_owned(), tensor(&[4], 0.0)));
    insta::assert_snapshot!(said(second, None), @"a.pth: a checkpoint of LLaMA-Adapter: unexpected tensor `layers.0.attention.wq.bias`: simmer reads version 1, which has `adapter_query.weight` and `layers.N.attention.gate` alone");
    insta::assert_snapshot!(said(stored(6, 0, &[], &heads), None), @"a.pth: a checkpoint of LLaMA-Adapter: it has no gates, `layers.N.attention.gate`");
    insta::assert_snapshot!(said(stored(6, 0, &[0.1], &[2]), None), @"a.pth: a checkpoint of LLaMA-Adapter: gates of the shape [2]; expected [1, heads, 1, 1], or [1]");
    insta::assert_snapshot!(said(stored(7, 0, &[0.1, 0.1], &heads), None), @"a.pth: a checkpoint of LLaMA-Adapter: the prompts of a layer are not known: `adapter_query.weight` has 7 rows, and gates of 2 layers are trained");
    insta::assert_snapshot!(said(stored(6, 0, &[0.1], &heads), Some(4)), @"a.pth: a checkpoint of LLaMA-Adapter: `adapter_query.weight` has 6 rows, which are not a multiple of `adapter_len` = 4");
    insta::assert_snapshot!(said(stored(30, 0, &[0.0, 0.0], &heads), None), @"a.pth: a checkpoint of LLaMA-Adapter: 30 prompts are 10 for each of 3 layers, and there are gates of 2 layers alone");
    let mut mixed = stored(6, 0, &[0.1, 0.1], &heads);
    mixed[1].1 = tensor(&[1, 3, 1, 1], 0.1);
    insta::assert_snapshot!(said(mixed, None), @"a.pth: a checkpoint of LLaMA-Adapter: `layers.1.attention.gate`: expected [1, 2, 1, 1], found [1, 3, 1, 1]");
}
