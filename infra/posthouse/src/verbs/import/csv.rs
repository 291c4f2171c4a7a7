//! Comma-separated values as RFC 4180 has them: fields in quotes where they hold commas, quotes or ends of lines.
//!
//! The crate `csv` takes any text for records, one with a quote that stands within a field or never ends too, which here is an error of
//! its line; so this would not become less by it.

/// Splits a record that is whole; `None`: a quoted field has not ended, more lines belong to it.
pub(crate) fn split(record: &str) -> Option<Result<Vec<String>, &'static str>> {
    let mut fields = vec![String::new()];
    let mut field = 0;
    let mut characters = record.chars().peekable();
    let mut is_quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields[field].push('"');
            }
            '"' if is_quoted => {
                is_quoted = false;
                if characters.peek().is_some_and(|next| *next != ',') {
                    return Some(Err("a comma must follow the quote that ends a field"));
                }
            }
            '"' if fields[field].is_empty() => is_quoted = true,
            '"' => {
                return Some(Err(
                    "a quote within a field needs the field in quotes, and is written twice",
                ));
            }
            ',' if !is_quoted => {
                fields.push(String::new());
                field += 1;
            }
            other => fields[field].push(other),
        }
    }
    (!is_quoted).then_some(Ok(fields))
}

/// Whether a line ends within a quoted field. From there on each further quote changes that.
pub(crate) fn is_open(line: &[u8]) -> bool {
    let quotes = line.iter().filter(|octet| **octet == b'"').count();
    quotes % 2 == 1
        && std::str::from_utf8(line)
            .is_ok_and(|line| split(line.trim_end_matches(['\r', '\n'])).is_none())
}

/// Writes a record, without the end of the line.
pub(crate) fn joined<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let written: Vec<String> = fields
        .into_iter()
        .map(|field| {
            if field.contains(['"', ',', '\n', '\r']) {
                format!("\"{}\"", field.replace('"', "\"\""))
            } else {
                field.to_owned()
            }
        })
        .collect();
    written.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_joined_is_split_into_the_same_fields() {
        for fields in [
            &["a", "", "c"][..],
            &["say \"hi\"", "1,5", "two\nlines", "\""],
            &[""],
        ] {
            let record = joined(fields.iter().copied());
            assert_eq!(split(&record).unwrap().unwrap(), fields, "{record}");
        }
    }

    #[test]
    fn a_quote_out_of_place_is_a_mistake_and_an_open_one_wants_more() {
        assert!(split("a,\"b").is_none());
        assert_eq!(split("a,\"b\nc\"").unwrap().unwrap(), ["a", "b\nc"]);
        assert!(split("a\"b").unwrap().is_err());
        assert!(split("\"a\"b").unwrap().is_err());
        assert!(split("\"a\" ,b").unwrap().is_err());
    }
}
