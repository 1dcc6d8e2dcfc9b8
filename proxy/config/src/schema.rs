//! The language as a JSON Schema, so that editors complete it.

use serde_json::{Value, json};

use crate::keys::{Key, Kind, ROOT};

/// The schema (draft 2020-12).
pub fn schema() -> Value {
    let mut root = table(ROOT);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Onehop configuration");
    root
}

fn table(keys: &[Key]) -> Value {
    let properties: serde_json::Map<String, Value> = keys
        .iter()
        .map(|key| {
            let mut value = kind(key.kind);
            value["description"] = json!(key.help);
            (key.name.to_owned(), value)
        })
        .collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9.]+ ?(us|ms|s|m|h)$" }),
        Kind::OptionalDuration => {
            json!({ "type": "string", "pattern": "^(off|[0-9.]+ ?(us|ms|s|m|h))$" })
        }
        Kind::Size => {
            json!({ "type": "string", "pattern": "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$" })
        }
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Numbers => json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } }),
        Kind::OneOf(words) => json!({ "enum": words }),
        Kind::Table(keys) => table(keys),
        Kind::Tables(keys) => json!({ "type": "array", "items": table(keys) }),
        Kind::Fraction => json!({ "type": "number", "minimum": 0 }),
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::MapOf(keys) => {
            json!({ "type": "object", "additionalProperties": { "anyOf": [{ "type": "string" }, table(keys)] } })
        }
        Kind::TextsOrTables(keys) => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, table(keys)] } })
        }
    }
}
