//! The base subject that threads and sorting compare. RFC 5256 §2.1.

/// A subject without what replying and forwarding put around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSubject {
    /// The base subject, case as written; compare it with i;unicode-casemap.
    pub text: String,
    /// True if something was taken off that marks a reply or forward.
    pub is_reply_or_forward: bool,
}

/// Gives the base subject of a decoded subject (see
/// [`decode_words`](super::decode_words)). Time is linear.
pub fn base_subject(subject: &str) -> BaseSubject {
    let mut text = String::with_capacity(subject.len());
    for word in subject.split_ascii_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    let mut base = text.as_str();
    let mut is_reply_or_forward = false;
    loop {
        // Step 2: trailers.
        loop {
            base = base.trim_end();
            match strip_suffix_ignoring_case(base, "(fwd)") {
                Some(rest) => base = rest,
                None => break,
            }
            is_reply_or_forward = true;
        }
        // Steps 3 to 5: leaders, and blobs that leave something behind.
        loop {
            base = base.trim_start();
            let (behind_blobs, last_blob) = skip_blobs(base);
            if let Some(rest) = strip_reply(behind_blobs) {
                base = rest;
                is_reply_or_forward = true;
                continue;
            }
            // A base must remain: if nothing but blobs is there, the last.
            base = if behind_blobs.is_empty() {
                last_blob
            } else {
                behind_blobs
            };
            break;
        }
        // Step 6: `[fwd: …]` around it all.
        let inside =
            strip_prefix_ignoring_case(base, "[fwd:").and_then(|inside| inside.strip_suffix(']'));
        match inside {
            Some(inside) => base = inside,
            None => break,
        }
        is_reply_or_forward = true;
    }
    let text = base.to_owned();
    BaseSubject {
        text,
        is_reply_or_forward,
    }
}

/// Passes `*subj-blob`; also gives where the last of them begins.
fn skip_blobs(text: &str) -> (&str, &str) {
    let mut rest = text;
    let mut last = text;
    while let Some(behind) = strip_blob(rest) {
        last = rest;
        rest = behind;
    }
    (rest, last)
}

/// `subj-blob = "[" *BLOBCHAR "]" *WSP`
fn strip_blob(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(['[', ']'])?;
    Some(inside[end..].strip_prefix(']')?.trim_start())
}

/// `subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"`
fn strip_reply(text: &str) -> Option<&str> {
    let rest = ["re", "fwd", "fw"]
        .iter()
        .find_map(|word| strip_prefix_ignoring_case(text, word))?
        .trim_start();
    strip_blob(rest).unwrap_or(rest).strip_prefix(':')
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let (rest, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_forwards_and_list_tags_are_taken_off() {
        for (subject, base, marked) in [
            ("Hello  \t world", "Hello world", false),
            ("Re: Hello", "Hello", true),
            (
                "[list] RE [2]: [x] Fwd:  fw : Hello (fwd) (FWD) ",
                "Hello",
                true,
            ),
            ("[a] [b] Hello", "Hello", false),
            ("[a] [b]", "[b]", false),
            ("[Fwd: [fwd: Re: Hello (fwd)]]", "Hello", true),
            ("[Fwd: a] [Fwd: b]", "b", true),
            ("Regarding: x", "Regarding: x", false),
            ("Re:", "", true),
            ("é", "é", false),
            ("ré: x", "ré: x", false),
            ("[ a [b] c", "[ a [b] c", false),
            ("", "", false),
        ] {
            let found = base_subject(subject);
            assert_eq!(
                (&*found.text, found.is_reply_or_forward),
                (base, marked),
                "{subject}"
            );
        }
    }
}
