//! What a route answers by itself and what it changes in messages.

use std::path::Path;

use onehop_plan::model::{Action, Cors, FieldEdits, PathRewrite, Redirect, Respond};

use crate::reader::{File, Table};

/// A body that every core keeps in memory.
const MAX_BODY: u64 = 1024 * 1024;

pub(super) fn action(file: &mut File<'_>, table: &Table<'_, '_>) -> Action {
    let redirect = table.table(file, "redirect").map(|redirect| Action::Redirect(read_redirect(file, &redirect)));
    let respond = table.table(file, "respond").map(|respond| Action::Respond(read_respond(file, &respond)));
    if redirect.is_some() && respond.is_some() {
        let span = table.span_of("respond").unwrap_or_default();
        file.wrong(span, "redirect and respond exclude each other", None);
    }
    redirect.or(respond).unwrap_or_default()
}

fn read_redirect(file: &mut File<'_>, table: &Table<'_, '_>) -> Redirect {
    Redirect {
        status: table.number(file, "status").unwrap_or(302),
        scheme: table.word(file, "scheme").map(str::to_owned),
        host: table.text(file, "host"),
        port: table.number(file, "port"),
        path: path_rewrite(file, table),
        drop_query: table.flag(file, "drop_query").unwrap_or(false),
    }
}

fn read_respond(file: &mut File<'_>, table: &Table<'_, '_>) -> Respond {
    let text = table.text(file, "text");
    let path = table.text(file, "file");
    if text.is_some() && path.is_some() {
        file.wrong(table.span.clone(), "text and file exclude each other", None);
    }
    let read = path.map(|path| {
        let span = table.span_of("file").unwrap_or_default();
        read_body(file, span, &path)
    });
    Respond {
        status: table.number(file, "status").unwrap_or(200),
        body: read.unwrap_or_else(|| text.unwrap_or_default().into_bytes()).into(),
        content_type: table.text(file, "content_type").unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()),
    }
}

/// Relative to the configuration's folder, so that it does not depend on where the proxy was started.
fn read_body(file: &mut File<'_>, span: std::ops::Range<usize>, path: &str) -> Vec<u8> {
    let whole = Path::new(file.name).parent().unwrap_or(Path::new("")).join(path);
    let length = std::fs::metadata(&whole).map(|data| data.len());
    let read = length.and_then(|length| if length > MAX_BODY { Ok(None) } else { std::fs::read(&whole).map(Some) });
    match read {
        Ok(Some(body)) => return body,
        Ok(None) => file.wrong(span, format!("{} is larger than 1 MiB", whole.display()), None),
        Err(error) => file.wrong(span, format!("{} cannot be read: {error}", whole.display()), None),
    }
    Vec::new()
}

/// `path`, or `prefix`.
pub(super) fn path_rewrite(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<PathRewrite> {
    match (table.text(file, "path"), table.text(file, "prefix")) {
        (Some(_), Some(_)) => {
            file.wrong(table.span.clone(), "path and prefix exclude each other", None);
            None
        }
        (Some(path), None) => Some(PathRewrite::Whole(path)),
        (None, prefix) => prefix.map(PathRewrite::Prefix),
    }
}

pub(super) fn edits(file: &mut File<'_>, table: &Table<'_, '_>, key: &str) -> FieldEdits {
    let Some(table) = table.table(file, key) else {
        return FieldEdits::default();
    };
    FieldEdits {
        remove: table.texts(file, "remove").unwrap_or_default(),
        rename: table.map(file, "rename"),
        set: table.map(file, "set"),
        add: table.map(file, "add"),
    }
}

pub(super) fn read_cors(file: &mut File<'_>, table: &Table<'_, '_>) -> Cors {
    Cors {
        origins: table.texts(file, "origins").unwrap_or_default(),
        methods: table.texts(file, "methods").unwrap_or_default(),
        headers: table.texts(file, "headers").unwrap_or_default(),
        expose: table.texts(file, "expose").unwrap_or_default(),
        credentials: table.flag(file, "credentials").unwrap_or(false),
        max_age: table.duration(file, "max_age"),
    }
}
