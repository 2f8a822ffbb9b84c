//! Patterns that keep files out of a copy, by rsync's and git's common part.
//!
//! `*` any text without `/`, `**` any text, `?` one byte but `/`, `[a-z]` and `[!a-z]` one of a set, `\` the next byte as it is. A pattern
//! without `/` is for the last name at any depth; with one it is for the whole path below the root of the copy. `/` at the end is for
//! folders only. Linear in time but for the number of `**`: a pattern comes from the other side, too.

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    whole_path: bool,
    folders_only: bool,
}

impl Pattern {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let (text, folders_only) = text.strip_suffix(b"/").map_or((text, false), |text| (text, true));
        let whole_path = text.contains(&b'/');
        let text = text.strip_prefix(b"/").unwrap_or(text).to_vec();
        Self { text, whole_path, folders_only }
    }

    /// Whether it is for this path, which is below the root and has no `/` at its ends.
    #[must_use]
    pub fn is_for(&self, path: &[u8], folder: bool) -> bool {
        if self.folders_only && !folder {
            return false;
        }
        let subject = if self.whole_path { path } else { path.rsplit(|b| *b == b'/').next().unwrap_or(path) };
        matches(&self.text, subject)
    }
}

/// Where to go on after a mismatch: the place of a star and how much it has taken.
#[derive(Clone, Copy)]
struct Star {
    pattern: usize,
    text: usize,
    crosses: bool,
}

/// Two stars to fall back to suffice: of a run of `*` the last decides, and of `**` the last decides.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let (mut star, mut double): (Option<Star>, Option<Star>) = (None, None);
    loop {
        if pattern.get(p) == Some(&b'*') {
            let crosses = pattern.get(p + 1) == Some(&b'*');
            p += if crosses { 2 } else { 1 };
            // `**/x` is for `x`, too.
            if crosses && pattern.get(p) == Some(&b'/') && (t == 0 || text.get(t - 1) == Some(&b'/')) {
                let fallback = Star { pattern: p, text: t, crosses };
                (double, star) = (Some(fallback), None);
                p += 1;
                continue;
            }
            let fallback = Some(Star { pattern: p, text: t, crosses });
            if crosses {
                (double, star) = (fallback, None);
            } else {
                star = fallback;
            }
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if let Some(byte) = text.get(t)
            && let Some(taken) = one(&pattern[p..], *byte)
        {
            p += taken;
            t += 1;
            continue;
        }
        let Some((again, at)) = fall_back(&mut star, &mut double, text) else { return false };
        (p, t) = (again, at);
    }
}

fn fall_back(star: &mut Option<Star>, double: &mut Option<Star>, text: &[u8]) -> Option<(usize, usize)> {
    for place in [star, double] {
        if let Some(found) = place {
            let next = text.get(found.text);
            if next.is_some_and(|byte| found.crosses || *byte != b'/') {
                found.text += 1;
                return Some((found.pattern, found.text));
            }
            *place = None;
        }
    }
    None
}

/// How much of the pattern stands for this one byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => (byte != b'/').then_some(1),
        b'\\' => match pattern.get(1) {
            Some(escaped) => (*escaped == byte).then_some(2),
            None => (byte == b'\\').then_some(1),
        },
        b'[' => match set(pattern, byte) {
            Some((len, inside)) => (inside && byte != b'/').then_some(len),
            None => (byte == b'[').then_some(1),
        },
        literal => (*literal == byte).then_some(1),
    }
}

/// The length of a set and whether the byte is in it; none where the set isn't closed.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let begin = if negated { 2 } else { 1 };
    let end = begin + 1 + pattern.get(begin + 1..)?.iter().position(|b| *b == b']')?;
    let mut items = &pattern[begin..end];
    let mut inside = false;
    while let [first, rest @ ..] = items {
        if let [b'-', last, after @ ..] = rest {
            inside |= (*first..=*last).contains(&byte);
            items = after;
        } else {
            inside |= *first == byte;
            items = rest;
        }
    }
    Some((end + 1, inside != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for(pattern: &str, path: &str, folder: bool) -> bool {
        Pattern::new(pattern.as_bytes()).is_for(path.as_bytes(), folder)
    }

    #[test]
    fn patterns_are_for_what_people_mean() {
        for (pattern, path) in [
            ("*.pyc", "a/b/c.pyc"),
            ("__pycache__", "x/__pycache__"),
            ("/data/*.bin", "data/a.bin"),
            ("data/**", "data/a/b"),
            ("**/tmp", "tmp"),
            ("**/tmp", "a/b/tmp"),
            ("a/**/z", "a/z"),
            ("a/**/z", "a/b/c/z"),
            ("[a-c]?", "bx"),
            ("[!a-c]", "d"),
            ("\\*", "*"),
            ("a*b*c", "aXbYbZc"),
            ("**a*b", "x/a/ab"),
            ("[", "["),
        ] {
            assert!(is_for(pattern, path, false), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.pyc", "a/b/c.py"),
            ("/data/*.bin", "data/x/a.bin"),
            ("data/x", "y/data/x"),
            ("?", "ab"),
            ("[a-c]", "d"),
            ("a/*/z", "a/b/c/z"),
            ("tmp/", "tmp"),
        ] {
            assert!(!is_for(pattern, path, false), "{pattern} {path}");
        }
        assert!(is_for("tmp/", "a/tmp", true));
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "*a".repeat(1000) + "b";
        let path = "a".repeat(4000);
        assert!(!is_for(&pattern, &path, false));
    }
}
