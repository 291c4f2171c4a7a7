//! Lists in pages, and keys in paths.

use serde::{Deserialize, Serialize};

/// Asks for one page of a collection, in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only entries whose name contains this: the login name of an account, the address, the
    /// back-end's name of a home, the state of a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only accounts of this status; of back-ends those of this state. Other lists pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only accounts with exactly this login name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_name: Option<String>,
    /// Only entries behind this key, from [`Page::next`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most [`super::limit::PAGE_ROWS_MAX`], which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// In the order of their keys. A page may be short, even empty, and not be the last: a filter
    /// that finds little gives up after a bounded number of rows.
    pub items: Vec<T>,
    /// The `after` of the next page; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl ListQuery {
    /// The query as it stands behind the `?`.
    #[must_use]
    pub fn to_query_string(&self) -> String {
        let limit = self.limit.map(|rows| rows.to_string());
        let pairs = [
            ("filter", self.filter.as_deref()),
            ("status", self.status.as_deref()),
            ("login_name", self.login_name.as_deref()),
            ("after", self.after.as_deref()),
            ("limit", limit.as_deref()),
        ];
        let given: Vec<String> = pairs
            .iter()
            .filter_map(|(name, value)| {
                value.map(|value| format!("{name}={}", encode_path_segment(value)))
            })
            .collect();
        given.join("&")
    }
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3), so that an address or a
/// name with `/`, `?` or `%` stays one segment.
#[must_use]
pub fn encode_path_segment(key: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(key.len());
    for octet in key.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(octet >> 4)]));
            out.push(char::from(DIGITS[usize::from(octet & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_reserved_characters_stays_one_segment() {
        assert_eq!(
            encode_path_segment("a/b?c%@x.test"),
            "a%2Fb%3Fc%25%40x.test"
        );
        assert_eq!(encode_path_segment("ü"), "%C3%BC");
    }

    #[test]
    fn a_query_names_only_what_is_given() {
        assert_eq!(ListQuery::default().to_query_string(), "");
        let query = ListQuery {
            filter: Some("a b".into()),
            limit: Some(5),
            ..ListQuery::default()
        };
        assert_eq!(query.to_query_string(), "filter=a%20b&limit=5");
    }
}
