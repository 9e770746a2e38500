//! URI templates of the REST protocols: `/schedules/{Name}`, `/{Key+}`, `/tags?list-type=2`.

use super::{DecodeError, form};

/// The labels of a matched path, by name, not yet percent-decoded.
type Labels<'t, 'p> = Vec<(&'t str, &'p str)>;

/// How well a template fits: the more literal and the earlier, the better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit(Vec<u8>);

/// Matches a path (still percent-encoded) and query pairs against a template; `None` where it does not fit.
pub fn fit<'t, 'p>(template: &'t str, path: &'p str, query: &[(String, String)]) -> Option<(Fit, Labels<'t, 'p>)> {
    let (template, wanted) = template.split_once('?').unwrap_or((template, ""));
    let mut literals = 0;
    for want in wanted.split('&').filter(|want| !want.is_empty()) {
        let (name, value) = want.split_once('=').unwrap_or((want, ""));
        if !query.iter().any(|(have, has)| have == name && (value.is_empty() || has == value)) {
            return None;
        }
        literals += 1;
    }
    let mut labels = Vec::new();
    let mut fit = Vec::new();
    let mut rest = Some(path.strip_prefix('/')?);
    let mut parts = template.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        let here = rest?;
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(label) if label.ends_with('+') => {
                // Greedy, yet what follows in the template must still fit.
                let after = parts.clone().count();
                let end = here.rmatch_indices('/').nth(after.checked_sub(1).unwrap_or(usize::MAX)).map(|(at, _)| at);
                let (taken, left) = if after == 0 { (here, None) } else { (&here[..end?], Some(&here[end? + 1..])) };
                if taken.is_empty() {
                    return None;
                }
                labels.push((&label[..label.len() - 1], taken));
                fit.push(1);
                rest = left;
            }
            label => {
                let (segment, left) = here.split_once('/').map_or((here, None), |(segment, left)| (segment, Some(left)));
                match label {
                    Some(label) if !segment.is_empty() => {
                        labels.push((label, segment));
                        fit.push(2);
                    }
                    None if segment == part => fit.push(3),
                    _ => return None,
                }
                rest = left;
            }
        }
        // A trailing slash of the caller's is no segment.
        if parts.peek().is_none() && rest == Some("") {
            rest = None;
        }
    }
    fit.push(literals);
    rest.is_none().then_some((Fit(fit), labels))
}

/// A label's value, percent-decoded.
pub fn label(text: &str) -> Result<String, DecodeError> {
    form::unescape(text.as_bytes(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let (_, labels) = fit(template, path, &[])?;
        Some(labels.into_iter().map(|(name, value)| (name.to_owned(), label(value).unwrap())).collect())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn labels_are_taken_from_the_path() {
        assert_eq!(labels("/schedules/{Name}", "/schedules/a%2Fb+c"), Some(vec![pair("Name", "a/b+c")]));
        assert_eq!(labels("/schedules/{Name}", "/schedules/a/"), Some(vec![pair("Name", "a")]));
        assert_eq!(labels("/schedules", "/schedules"), Some(vec![]));
        assert_eq!(labels("/", "/"), Some(vec![]));
        assert_eq!(labels("/b/{K+}", "/b/x/y"), Some(vec![pair("K", "x/y")]));
        assert_eq!(labels("/b/{K+}/end", "/b/x/y/end"), Some(vec![pair("K", "x/y")]));
        for (template, path) in [
            ("/schedules/{Name}", "/schedules/"),
            ("/schedules/{Name}", "/schedules/a/b"),
            ("/schedules/{Name}", "/schedules"),
            ("/schedules", "/schedule"),
            ("/schedules", "schedules"),
            ("/b/{K+}/end", "/b/end"),
            ("/b/{K+}", "/b/"),
        ] {
            assert_eq!(labels(template, path), None, "{template} {path}");
        }
    }

    #[test]
    fn a_literal_fits_better_than_a_label() {
        let fit = |template| fit(template, "/a/b", &[("x".into(), "1".into())]).unwrap().0;
        assert!(fit("/a/b") > fit("/a/{L}"));
        assert!(fit("/a/{L}") > fit("/{K}/b"));
        assert!(fit("/{K}/b") > fit("/{K+}"));
        assert!(fit("/a/b?x=1") > fit("/a/b"));
    }
}
