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

/// What is said about each choice, or the error.
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
    ]), @"");
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
    ]), @"");
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
