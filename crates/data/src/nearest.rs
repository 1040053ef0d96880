//! The known name that a misspelled one may mean.

/// The name that is most similar to `wanted`, with its similarity from 0 to 1; `None` if there are no names.
pub(crate) fn nearest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<(f64, &'a str)> {
    let names = names.into_iter();
    names
        .map(|name| (strsim::jaro_winkler(name, wanted), name))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
}
