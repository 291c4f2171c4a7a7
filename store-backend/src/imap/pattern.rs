//! LIST patterns: `*` for anything, `%` for anything within a level. RFC 9051 §6.3.9.

/// Whether a name matches. Takes time in the product of the two lengths, whatever the wildcards.
///
/// INBOX as first level is one name in any case; `inb%` is it too.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let inbox = match name {
        "INBOX" => 5,
        name if name.starts_with("INBOX/") => 5,
        _ => 0,
    };
    let name = name.as_bytes();
    // Places in the name up to which the pattern read so far can match.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern.bytes() {
        let mut any = false;
        match wanted {
            b'*' | b'%' => {
                for place in 1..=name.len() {
                    let may_pass = wanted == b'*' || name[place - 1] != b'/';
                    reached[place] |= may_pass && reached[place - 1];
                }
                any = true;
            }
            _ => {
                for place in (1..=name.len()).rev() {
                    let octet = name[place - 1];
                    let is_same = match place <= inbox {
                        true => octet.eq_ignore_ascii_case(&wanted),
                        false => octet == wanted,
                    };
                    reached[place] = reached[place - 1] && is_same;
                    any |= reached[place];
                }
                reached[0] = false;
            }
        }
        if !any {
            return false;
        }
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_rfc_9051_has_it() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("*", "a/b/c", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("%/%", "a/b", true),
            ("a/%", "a", false),
            ("a*", "a/b", true),
            ("a%", "abc", true),
            ("a%c", "a/c", false),
            ("*b", "a/b/c/b", true),
            ("%b%/c", "abab/c", true),
            ("inbox", "INBOX", true),
            ("inb%", "INBOX", true),
            ("iNbOx/a", "INBOX/a", true),
            ("iNbOx/a", "INBOX/A", false),
            ("inbox", "INBOXES", false),
            ("INBOX", "inboxes", false),
            ("ü%", "üb", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn a_pattern_of_wildcards_takes_no_longer_than_its_length() {
        let pattern = "%*a".repeat(341);
        let name = "a/".repeat(511);
        assert!(!matches(&pattern, &name));
    }
}
