//! `[runtime]` and `[access_log]`.

use std::path::PathBuf;

use onehop_plan::model::Model;
use onehop_plan::{AccessLog, LogFormat, Place};

use super::{At, socket_address};
use crate::keys;
use crate::reader::{File, Table};

pub(super) fn runtime(file: &mut File<'_>, table: &Table<'_, '_>, model: &mut Model, at: &mut At<'_>) {
    at.all(table, keys::RUNTIME, Place::Runtime);
    let runtime = &mut model.runtime;
    runtime.workers = table.number(file, "workers").or(runtime.workers);
    if table.value("cpus").is_some() {
        runtime.cpus = table.numbers(file, "cpus");
    }
    if let Some(text) = table.text(file, "admin") {
        runtime.admin = socket_address(file, table.span_of("admin"), "admin", &text);
    }
    runtime.busy_poll = table.duration(file, "busy_poll").unwrap_or(runtime.busy_poll);
    runtime.drain = table.duration(file, "drain").unwrap_or(runtime.drain);
    runtime.max_connections = table.number(file, "max_connections").unwrap_or(runtime.max_connections);
    runtime.shed_after = table.duration(file, "shed_after").or(runtime.shed_after);
    runtime.mark = table.number(file, "mark").or(runtime.mark);
    runtime.takeover = table.text(file, "takeover").map(PathBuf::from);
}

pub(super) fn access_log(file: &mut File<'_>, table: &Table<'_, '_>) -> AccessLog {
    let format = match table.text(file, "format") {
        None => LogFormat::Json,
        Some(json) if json == "json" => LogFormat::Json,
        Some(template) if template.contains('{') => LogFormat::Template(template),
        Some(other) => {
            let hint = "\"json\", or a template such as \"{time} {method} {path} {status}\"".to_owned();
            file.wrong(
                table.span_of("format").unwrap_or_default(),
                format!("format cannot be \"{other}\""),
                Some(hint),
            );
            LogFormat::Json
        }
    };
    AccessLog { path: table.text(file, "path").map(PathBuf::from), format }
}
