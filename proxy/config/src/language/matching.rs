//! What a route matches beyond its path, and what choices are made by.

use onehop_plan::model::{FieldMatch, HashOn, ValueMatch};
use onehop_plan::route::Cidr;
use toml::de::DeValue;

use crate::reader::{File, Table};

pub(super) fn hosts(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<String> {
    let mut hosts = table.texts(file, "hosts").unwrap_or_default();
    hosts.extend(table.text(file, "host"));
    hosts
}

pub(super) fn sources(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<Cidr> {
    let mut sources = Vec::new();
    for element in table.list(file, "source") {
        let text = element.get_ref().as_str().unwrap_or_default();
        match text.parse() {
            Ok(range) => sources.push(range),
            Err(hint) => file.wrong(element.span(), format!("source \"{text}\" is no range of addresses"), Some(hint)),
        }
    }
    sources
}

/// `headers = { x = "1", y = { present = true } }`.
pub(super) fn fields(file: &mut File<'_>, table: &Table<'_, '_>, key: &str) -> Vec<FieldMatch> {
    let mut fields = Vec::new();
    if table.value(key).is_none() {
        return fields;
    }
    for (name, value) in table.entries(file, key) {
        let test = match value.get_ref() {
            DeValue::String(text) => Some(ValueMatch::Exact(text.to_string())),
            DeValue::Table(entries) => {
                let test = Table::open(file, entries, value.span(), table.nested(key));
                value_match(file, &test)
            }
            _ => None,
        };
        match test {
            Some(value) => fields.push(FieldMatch { name, value }),
            None => file.wrong(
                value.span(),
                format!("\"{name}\" is matched by a text, or by one of exact, prefix, regex and present"),
                Some(format!("{key} = {{ \"{name}\" = {{ prefix = \"...\" }} }}")),
            ),
        }
    }
    fields
}

fn value_match(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<ValueMatch> {
    let mut found = Vec::new();
    found.extend(table.text(file, "exact").map(ValueMatch::Exact));
    found.extend(table.text(file, "prefix").map(ValueMatch::Prefix));
    found.extend(table.text(file, "regex").map(ValueMatch::Regex));
    let present = table.flag(file, "present");
    found.extend(present.map(|present| if present { ValueMatch::Present } else { ValueMatch::Absent }));
    found.pop().filter(|_| found.is_empty())
}

pub(super) fn hash_on(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<HashOn> {
    let mut found = Vec::new();
    found.extend(table.text(file, "header").map(HashOn::Header));
    found.extend(table.text(file, "cookie").map(HashOn::Cookie));
    found.extend(table.text(file, "query").map(HashOn::Query));
    found.extend(table.flag(file, "source").and_then(|on| on.then_some(HashOn::Source)));
    found.extend(table.flag(file, "path").and_then(|on| on.then_some(HashOn::Path)));
    found.extend(table.flag(file, "identity").and_then(|on| on.then_some(HashOn::Identity)));
    let only = found.pop().filter(|_| found.is_empty());
    if only.is_none() {
        let hint = "{ header = \"x-user\" }, { cookie = \"session\" }, { source = true }".to_owned();
        file.wrong(table.span.clone(), "it is one of header, cookie, query, source, path and identity", Some(hint));
    }
    only
}
