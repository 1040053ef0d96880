use super::*;

const NONE: BaseArgs = BaseArgs {
    into: None,
    original: None,
    precision: None,
    double_quant: true,
};

fn trained_on(kind: &str, on_load: bool) -> QuantisedBase {
    QuantisedBase {
        kind: kind.to_owned(),
        on_load,
        double_quant: on_load,
    }
}

fn choose(
    args: &BaseArgs,
    stored: Option<&str>,
    trained_on: Option<&QuantisedBase>,
) -> Result<Bases, Failure> {
    args.of(Path::new("base"), stored, args.original.clone(), trained_on)
}

/// The lines about each choice, or the error.
fn said(cases: &[(BaseArgs, Option<&str>, Option<QuantisedBase>)]) -> String {
    let lines =
        cases.iter().map(
            |(args, stored, trained)| match choose(args, *stored, trained.as_ref()) {
                Ok(bases) => [Some(bases.describe()), bases.warning]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("\n  warning: "),
                Err(error) => error.text(),
            },
        );
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_weights_of_the_training_are_the_default() {
    let original = || Some(PathBuf::from("orig"));
    insta::assert_snapshot!(said(&[
        (NONE, None, None),
        (NONE, None, Some(trained_on("nf4", true))),
        (
            BaseArgs { into: Some(Into::Original), ..NONE },
            None,
            Some(trained_on("int8", true))
        ),
        (NONE, Some("Q4_K"), None),
        // another base model than that of the training
        (NONE, Some("Q4_K"), Some(trained_on("Q8_0", false))),
        (NONE, Some("nf4"), Some(trained_on("nf4", true))),
        (
            BaseArgs { precision: Some(BasePrecision::Int8), ..NONE },
            None,
            Some(trained_on("nf4", true))
        ),
        (BaseArgs { original: original(), ..NONE }, Some("Q4_K"), None),
        (
            BaseArgs { into: Some(Into::Original), original: original(), ..NONE },
            Some("fp8"),
            None
        ),
        // an adapter of another program
        (
            BaseArgs { precision: Some(BasePrecision::Nf4), double_quant: false, ..NONE },
            None,
            None
        ),
        (NONE, None, Some(trained_on("Q4_K", false))),
    ]), @r"
    merged into the original base model: base, which is not quantised
    merged into the dequantised base model: base quantised to nf4 with double quantisation and widened again, as in training (--into original merges into the weights before quantisation)
    merged into the original base model: base; the adapter was trained on that model quantised to int8, so that the merged model differs from the trained one by the error of the quantisation
    merged into the dequantised base model: base, stored in Q4_K, widened, as in training (--original MODEL, the model that it was quantised from, measures the error of the quantisation)
    merged into the dequantised base model: base, stored in Q4_K, widened (--original MODEL, the model that it was quantised from, measures the error of the quantisation)
      warning: the adapter was trained on a base model stored in Q8_0, and this one is in Q4_K: the merged model differs from the trained one
    merged into the dequantised base model: base, stored in nf4, widened, as in training (--original MODEL, the model that it was quantised from, measures the error of the quantisation)
    merged into the dequantised base model: base quantised to int8 and widened again (--into original merges into the weights before quantisation)
      warning: the adapter was trained on a base model quantised to nf4 with double quantisation while it was loaded, and this one is in int8: the merged model differs from the trained one
    merged into the dequantised base model: base, stored in Q4_K, widened, as in training (--into original merges into the weights before quantisation)
    merged into the original base model: orig; the adapter was trained on base, stored in fp8, so that the merged model differs from the trained one by the error of the quantisation
    merged into the dequantised base model: base quantised to nf4 without double quantisation and widened again, as in training (--into original merges into the weights before quantisation)
    merged into the original base model: base, which is not quantised
      warning: the adapter was trained on a base model in Q4_K, and base is not quantised: the merged model differs from the trained one by the error of the quantisation. To measure it, name the quantised model with --base and this one with --original
    ");
}

#[test]
fn what_cannot_be_merged_into_is_said() {
    let original = || Some(PathBuf::from("orig"));
    let into = |into| BaseArgs {
        into: Some(into),
        ..NONE
    };
    insta::assert_snapshot!(said(&[
        (into(Into::Original), Some("nf4"), None),
        (into(Into::Dequantised), None, None),
        (into(Into::Dequantised), None, Some(trained_on("Q4_K", false))),
        (BaseArgs { original: original(), ..NONE }, None, None),
        (
            BaseArgs { precision: Some(BasePrecision::Nf4), ..NONE },
            Some("Q8_0"),
            None
        ),
    ]), @r"
    error: --into original: base is stored in nf4, and has no original weights
    hint: name the model that it was quantised from with --original MODEL
    error: --into dequantised: base is not quantised
    hint: remove --into; for an adapter that was trained on this model quantised while it was loaded (QLoRA), say how with --precision
    error: --into dequantised: base is not quantised
    hint: the adapter was trained on a model in Q4_K: name it with --base
    error: --original: base is not stored in a quantised type, so that it is the original itself
    hint: remove --original, or give the quantised model with --base
    error: --precision: base is already stored in Q8_0, so that nothing is quantised while it is loaded
    hint: remove --precision; name the model that it was quantised from with --original
    ");
}

#[test]
fn the_other_form_is_the_one_that_is_not_merged_into() {
    let nf4 = trained_on("nf4", true);
    let on_load = nf4.on_load();
    let bases = choose(&NONE, None, Some(&nf4)).unwrap();
    assert_eq!(bases.target.on_load, on_load);
    assert_eq!(bases.other(), Some(OtherForm::Original(Path::new("base"))));
    let args = BaseArgs {
        into: Some(Into::Original),
        ..NONE
    };
    let bases = choose(&args, None, Some(&nf4)).unwrap();
    assert_eq!(bases.target.on_load, None);
    let path = Path::new("base");
    assert_eq!(bases.other(), Some(OtherForm::Quantised { path, on_load }));
    // the option is preferred to what the adapter says
    let args = BaseArgs {
        precision: Some(BasePrecision::Fp4),
        ..NONE
    };
    let bases = choose(&args, None, Some(&nf4)).unwrap();
    let found = bases.target.on_load.unwrap();
    assert_eq!(
        (found.precision, found.double_quant),
        (BasePrecision::Fp4, true)
    );
}
