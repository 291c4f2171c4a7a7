//! Rust source as tokens, so that a rule about code is not fooled by comments, strings or line breaks.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file of ours, flattened: comments are gone, doc comments and strings are single literals.
pub(crate) struct Source {
    /// Token text and line, from 1.
    tokens: Vec<(String, usize)>,
}

impl Source {
    /// # Errors
    /// What the lexer says about text that is not Rust.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let stream = TokenStream::from_str(text)
            .map_err(|error| format!("line {}: {error}", error.span().start().line))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        Ok(Self { tokens })
    }

    /// Lines on which the tokens of `pattern` (parted by blanks) stand next to each other.
    pub(crate) fn lines_with(&self, pattern: &str) -> Vec<usize> {
        let wanted: Vec<&str> = pattern.split_whitespace().collect();
        let windows = self.tokens.windows(wanted.len().max(1));
        let hits = windows.filter(|window| window.iter().map(|(token, _)| token).eq(wanted.iter()));
        hits.map(|window| window[0].1).collect()
    }
}

/// Says for each file where one of the patterns occurs.
pub(crate) fn findings<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    patterns: &[&str],
    why: &str,
) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in files {
        match Source::parse(text) {
            Err(error) => findings.push(format!("{path}: not readable as Rust: {error}")),
            Ok(source) => {
                for pattern in patterns {
                    let lines = source.lines_with(pattern);
                    findings.extend(
                        lines
                            .iter()
                            .map(|line| format!("{path}:{line}: `{pattern}`: {why}")),
                    );
                }
            }
        }
    }
    findings
}

fn flatten(stream: TokenStream, tokens: &mut Vec<(String, usize)>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push((open.to_owned(), line));
                flatten(group.stream(), tokens);
                tokens.push((close.to_owned(), group.span_close().start().line));
            }
            other => tokens.push((other.to_string(), line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_with_its_line() {
        let source = Source::parse(
            "fn f() {\n    todo!(\"x\")\n}\n#[ignore = \"slow\"]\nfn g() { Instant\n::now() }",
        )
        .unwrap();
        assert_eq!(source.lines_with("todo !"), [2]);
        assert_eq!(source.lines_with("# [ ignore"), [4]);
        assert_eq!(source.lines_with("Instant : : now"), [5]);
        assert_eq!(source.lines_with("unsafe"), [0; 0]);
    }

    #[test]
    fn comments_strings_and_longer_words_are_not_code() {
        let text = "// unsafe\n/* unsafe */\n/// unsafe\n#![allow(unsafe_code)]\nconst S: &str = \"unsafe\"; const R: &str = r#\"unsafe\"#;";
        assert_eq!(Source::parse(text).unwrap().lines_with("unsafe"), [0; 0]);
    }

    #[test]
    fn text_that_is_not_rust_is_a_finding() {
        let files = [("a.rs", "fn f( {"), ("b.rs", "fn f() {}")];
        let found = findings(files.into_iter(), &["unsafe"], "no");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("a.rs: not readable as Rust"),
            "{found:?}"
        );
    }
}
