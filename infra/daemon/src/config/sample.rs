//! Writes the sample settings file from the declarations.

use std::fmt::Write;

use serde_json::Value;

use super::{Field, Settings};

pub(super) fn sample<T: Settings>() -> String {
    // Settings are plain data: texts, numbers, lists, sections. Serialising them cannot fail.
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut out = String::new();
    write_section(&mut out, &T::fields(), &defaults, "");
    out
}

/// Writes plain values first: in TOML everything after a section's heading belongs to it.
fn write_section(out: &mut String, fields: &[Field], defaults: &Value, path: &str) {
    for field in fields.iter().filter(|field| field.section.is_none()) {
        write_doc(out, field);
        match &defaults[field.name] {
            Value::Null => _ = writeln!(out, "# {} =\n", field.name),
            value => _ = writeln!(out, "{} = {}\n", field.name, toml(value)),
        }
    }
    for field in fields {
        let Some(inner) = &field.section else {
            continue;
        };
        let path = format!("{path}{}", field.name);
        write_doc(out, field);
        _ = writeln!(out, "[{path}]");
        write_section(out, inner, &defaults[field.name], &format!("{path}."));
    }
}

fn write_doc(out: &mut String, field: &Field) {
    for line in field.doc {
        _ = writeln!(out, "#{}", line.trim_end());
    }
}

/// Writes a value as TOML; a JSON text is a TOML basic string, escapes included.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(toml).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{} = {}", Value::from(key.as_str()), toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}
