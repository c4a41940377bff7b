//! What the tests of texts read of the sources.

/// The names of the tests of a source; another function is none.
pub(crate) fn tests(source: &str) -> Vec<&str> {
    let (mut found, mut is_next) = (Vec::new(), false);
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_next = true;
        } else if is_next && let Some((_, rest)) = line.split_once("fn ") {
            found.extend(rest.split_once('(').map(|(name, _)| name));
            is_next = false;
        }
    }
    found
}
