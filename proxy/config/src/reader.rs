//! Reads tables key by key, remembering where everything stands, and collects what is wrong instead of stopping.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use onehop_plan::{Place, Problem};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::keys::{Key, Kind};
use crate::units;

/// Where the parts of a model stand in the files.
#[derive(Debug, Default)]
pub struct Positions {
    known: HashMap<Place, (usize, Range<usize>)>,
    sources: Vec<(String, String)>,
}

impl Positions {
    pub(crate) fn add_source(&mut self, file: &str, text: &str) -> usize {
        self.sources.push((file.to_owned(), text.to_owned()));
        self.sources.len() - 1
    }

    pub(crate) fn set(&mut self, place: Place, source: usize, span: Range<usize>) {
        self.known.insert(place, (source, span));
    }

    /// The problem with its position; that of the table where the key is not written.
    pub(crate) fn explain(&self, problem: &Problem) -> Diagnostic {
        let (source, span) = self.find(problem.place);
        let empty = (String::from("configuration"), String::new());
        let (file, text) = self.sources.get(source).unwrap_or(&empty);
        let other = problem.other.map(|other| {
            let (source, span) = self.find(other);
            let (file, text) = self.sources.get(source).unwrap_or(&empty);
            let other = Diagnostic::new(file, text, span, String::new(), None);
            format!("the other stands at {}:{}:{}", other.file, other.line, other.column)
        });
        Diagnostic::new(file, text, span, problem.message.clone(), problem.hint.clone().or(other))
    }

    /// Where a part stands; its table where the key is not written.
    fn find(&self, place: Place) -> (usize, Range<usize>) {
        let table = match place {
            Place::Runtime(_) => Place::Runtime(""),
            Place::Identity => Place::Identity,
            Place::Sidecar => Place::Sidecar,
            Place::Listener(at, _) => Place::Listener(at, ""),
            Place::Route(at, _) => Place::Route(at, ""),
            Place::Cluster(at, _) => Place::Cluster(at, ""),
        };
        let found = self.known.get(&place).or_else(|| self.known.get(&table));
        // What a preset made stands where the preset stands.
        let found = found.or_else(|| self.known.get(&Place::Sidecar));
        found.cloned().unwrap_or((0, 0..0))
    }
}

/// What all tables of one file share.
pub struct File<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub wrong: Vec<Diagnostic>,
}

impl File<'_> {
    /// A path as it is written; relative ones start from the configuration's own folder.
    pub fn path(&self, text: &str) -> std::path::PathBuf {
        std::path::Path::new(self.name).parent().unwrap_or(std::path::Path::new("")).join(text)
    }

    pub fn wrong(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.wrong.push(Diagnostic::new(self.name, self.text, span, message.into(), hint));
    }
}

/// One table under its keys.
pub struct Table<'t, 'i> {
    entries: &'t DeTable<'i>,
    /// Where it stands.
    pub span: Range<usize>,
    keys: &'static [Key],
}

fn kind_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'t, 'i> Table<'t, 'i> {
    /// Opens a table; keys that the language does not know are errors.
    pub fn open(
        file: &mut File<'_>,
        entries: &'t DeTable<'i>,
        span: Range<usize>,
        keys: &'static [Key],
    ) -> Table<'t, 'i> {
        for (name, _) in entries.iter() {
            let spelt: &str = name.get_ref();
            if !keys.iter().any(|key| key.name == spelt) {
                let near = onehop_plan::nearest(spelt, keys.iter().map(|key| key.name));
                let hint = near.map_or_else(
                    || format!("known keys are {}", keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean \"{near}\"?"),
                );
                file.wrong(name.span(), format!("unknown key \"{spelt}\""), Some(hint));
            }
        }
        Table { entries, span, keys }
    }

    /// The value of a key, and where it stands.
    pub fn value(&self, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        debug_assert!(self.keys.iter().any(|key| key.name == name), "{name} is no key of this table");
        self.entries.get(name)
    }

    /// Where a key's value stands.
    pub fn span_of(&self, name: &str) -> Option<Range<usize>> {
        self.value(name).map(Spanned::span)
    }

    fn expect<T>(
        &self,
        file: &mut File<'_>,
        name: &str,
        what: &str,
        read: impl FnOnce(&'t DeValue<'i>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let found = read(value.get_ref());
        if found.is_none() {
            file.wrong(value.span(), format!("{name} must be {what}, not {}", kind_name(value.get_ref())), None);
        }
        found
    }

    pub fn text(&self, file: &mut File<'_>, name: &str) -> Option<String> {
        self.expect(file, name, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub fn flag(&self, file: &mut File<'_>, name: &str) -> Option<bool> {
        self.expect(file, name, "true or false", DeValue::as_bool)
    }

    /// A whole number that fits, from zero.
    pub fn number<T: TryFrom<i64>>(&self, file: &mut File<'_>, name: &str) -> Option<T> {
        let number = self.expect(file, name, "a number", |value| integer(value))?;
        let fits = T::try_from(number).ok().filter(|_| number >= 0);
        if fits.is_none() {
            file.wrong(self.span_of(name).unwrap_or_default(), format!("{name} is out of range: {number}"), None);
        }
        fits
    }

    fn unit<T>(
        &self,
        file: &mut File<'_>,
        name: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            other => {
                file.wrong(value.span(), format!("{name} must be a text with a unit, not {}", kind_name(other)), None);
                return None;
            }
        };
        match read(&text) {
            Ok(read) => Some(read),
            Err((message, hint)) => {
                file.wrong(value.span(), format!("{name}: {message}"), Some(hint));
                None
            }
        }
    }

    pub fn duration(&self, file: &mut File<'_>, name: &str) -> Option<Duration> {
        self.unit(file, name, units::duration)
    }

    /// `Some(None)` for "off".
    pub fn optional_duration(&self, file: &mut File<'_>, name: &str) -> Option<Option<Duration>> {
        if self.value(name)?.get_ref().as_str() == Some("off") {
            return Some(None);
        }
        self.duration(file, name).map(Some)
    }

    pub fn size(&self, file: &mut File<'_>, name: &str) -> Option<u64> {
        self.unit(file, name, units::size)
    }

    /// The elements of a list, each with its position.
    pub fn list(&self, file: &mut File<'_>, name: &str) -> Vec<&'t Spanned<DeValue<'i>>> {
        self.expect(file, name, "a list", |value| value.as_array().map(|array| array.iter().collect()))
            .unwrap_or_default()
    }

    pub fn texts(&self, file: &mut File<'_>, name: &str) -> Option<Vec<String>> {
        self.value(name)?;
        let mut texts = Vec::new();
        for element in self.list(file, name) {
            match element.get_ref().as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => file.wrong(
                    element.span(),
                    format!("{name} must hold texts, not {}", kind_name(element.get_ref())),
                    None,
                ),
            }
        }
        Some(texts)
    }

    pub fn numbers(&self, file: &mut File<'_>, name: &str) -> Vec<usize> {
        let mut numbers = Vec::new();
        for element in self.list(file, name) {
            match integer(element.get_ref()).and_then(|number| usize::try_from(number).ok()) {
                Some(number) => numbers.push(number),
                None => file.wrong(element.span(), format!("{name} must hold numbers from zero"), None),
            }
        }
        numbers
    }

    /// A number that may have a fraction.
    pub fn fraction(&self, file: &mut File<'_>, name: &str) -> Option<f64> {
        let read = |value: &DeValue<'_>| {
            let float = value.as_float().and_then(|float| float.as_str().replace('_', "").parse().ok());
            float.or_else(|| integer(value).map(|number| number as f64))
        };
        let number = self.expect(file, name, "a number", read)?;
        let fits = Some(number).filter(|number| number.is_finite() && *number >= 0.0);
        if fits.is_none() {
            file.wrong(self.span_of(name).unwrap_or_default(), format!("{name} is out of range: {number}"), None);
        }
        fits
    }

    /// The entries of a table whose names the user chooses.
    pub fn entries(&self, file: &mut File<'_>, name: &str) -> Vec<(String, &'t Spanned<DeValue<'i>>)> {
        let found = self.expect(file, name, "a table", |value| value.as_table());
        let entries = found.into_iter().flat_map(|table| table.iter());
        entries.map(|(key, value)| (key.get_ref().to_string(), value)).collect()
    }

    /// Texts by names that the user chooses.
    pub fn map(&self, file: &mut File<'_>, name: &str) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (key, value) in self.entries(file, name) {
            match value.get_ref().as_str() {
                Some(text) => texts.push((key, text.to_owned())),
                None => {
                    file.wrong(value.span(), format!("{key} must be a text, not {}", kind_name(value.get_ref())), None);
                }
            }
        }
        texts
    }

    /// A table within this one.
    pub fn table(&self, file: &mut File<'_>, name: &str) -> Option<Table<'t, 'i>> {
        let keys = self.nested(name);
        let entries = self.expect(file, name, "a table", |value| value.as_table())?;
        Some(Table::open(file, entries, self.span_of(name).unwrap_or_default(), keys))
    }

    /// The tables of a list within this one.
    pub fn tables(&self, file: &mut File<'_>, name: &str) -> Vec<Table<'t, 'i>> {
        let keys = self.nested(name);
        let mut tables = Vec::new();
        if self.value(name).is_none() {
            return tables;
        }
        for element in self.list(file, name) {
            match element.get_ref().as_table() {
                Some(entries) => tables.push(Table::open(file, entries, element.span(), keys)),
                None => file.wrong(
                    element.span(),
                    format!("{name} must hold tables, not {}", kind_name(element.get_ref())),
                    None,
                ),
            }
        }
        tables
    }

    /// The keys of a nested table.
    pub fn nested(&self, name: &str) -> &'static [Key] {
        match self.keys.iter().find(|key| key.name == name).map(|key| key.kind) {
            Some(Kind::Table(keys) | Kind::Tables(keys) | Kind::TextsOrTables(keys) | Kind::MapOf(keys)) => keys,
            _ => &[],
        }
    }

    /// One of the words that a key allows.
    pub fn word(&self, file: &mut File<'_>, name: &str) -> Option<&'static str> {
        let Some(Kind::OneOf(words)) = self.keys.iter().find(|key| key.name == name).map(|key| key.kind) else {
            return None;
        };
        let spelt = self.text(file, name)?;
        one_of(file, self.span_of(name).unwrap_or_default(), name, &spelt, words)
    }
}

/// The word that was meant, or an error that lists them.
pub fn one_of(
    file: &mut File<'_>,
    span: Range<usize>,
    name: &str,
    spelt: &str,
    words: &'static [&'static str],
) -> Option<&'static str> {
    let found = words.iter().find(|word| **word == spelt).copied();
    if found.is_none() {
        let hint = match onehop_plan::nearest(spelt, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it is one of {}", words.join(", ")),
        };
        file.wrong(span, format!("{name} cannot be \"{spelt}\""), Some(hint));
    }
    found
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}
