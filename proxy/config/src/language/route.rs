//! `[[route]]`.

use onehop_plan::model::{Filters, PathMatch, Route, Target};

use super::filter::{action, edits, path_rewrite, read_cors};
use super::limits;
use super::matching::{fields, hash_on, hosts, sources};
use super::policy::labels;
use super::resilience::resilience;
use crate::reader::{File, Table};

/// `cluster`, or `split`.
pub(super) fn targets(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<Target> {
    let subset = labels(file, table, "subset");
    if !subset.is_empty() && table.value("cluster").is_none() {
        let span = table.span_of("subset").unwrap_or_default();
        file.wrong(
            span,
            "a subset is one of the cluster that is named beside it",
            Some("cluster = \"NAME\"".to_owned()),
        );
    }
    let single = table.text(file, "cluster").map(|cluster| Target { cluster, weight: 1, subset });
    let split = table.tables(file, "split");
    if single.is_some() && !split.is_empty() {
        file.wrong(
            table.span_of("split").unwrap_or_default(),
            "cluster and split exclude each other",
            Some("list every cluster in split".to_owned()),
        );
    }
    let mut targets: Vec<Target> = single.into_iter().collect();
    for part in split {
        match part.text(file, "cluster") {
            Some(cluster) => {
                let (weight, subset) = (part.number(file, "weight").unwrap_or(1), labels(file, &part, "subset"));
                targets.push(Target { cluster, weight, subset });
            }
            None => file.wrong(part.span.clone(), "a part of a split needs a cluster", None),
        }
    }
    targets
}

pub(super) fn route(file: &mut File<'_>, table: &Table<'_, '_>, index: usize) -> Route {
    let default = Route::default();
    let mut methods = table.texts(file, "methods").unwrap_or_default();
    methods.extend(table.text(file, "method"));
    for method in &methods {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')) {
            let span = table.span_of("method").or_else(|| table.span_of("methods")).unwrap_or_default();
            file.wrong(
                span,
                format!("\"{method}\" is no method"),
                Some(format!("methods are case-sensitive: \"{}\"", method.to_uppercase())),
            );
        }
    }
    let path = table.table(file, "path").map(|path| path_match(file, &path));
    let rewrite = table.table(file, "rewrite");
    Route {
        name: table.text(file, "name").unwrap_or_else(|| format!("route-{}", index + 1)),
        listeners: table.texts(file, "listeners").unwrap_or_default(),
        hosts: hosts(file, table),
        path: path.unwrap_or(default.path),
        methods,
        headers: fields(file, table, "headers"),
        queries: fields(file, table, "query"),
        sources: sources(file, table),
        sni: table.texts(file, "sni").unwrap_or_default(),
        action: action(file, table),
        targets: targets(file, table),
        split_by: table.table(file, "split_by").and_then(|on| hash_on(file, &on)),
        rewrite: rewrite.as_ref().and_then(|rewrite| path_rewrite(file, rewrite)),
        rewrite_host: rewrite.as_ref().and_then(|rewrite| rewrite.text(file, "host")),
        filters: Filters {
            request: edits(file, table, "request_headers"),
            response: edits(file, table, "response_headers"),
        },
        cors: table.table(file, "cors").map(|cors| read_cors(file, &cors)),
        timeout: table.optional_duration(file, "timeout").unwrap_or(default.timeout),
        resilience: resilience(file, table),
        upgrades: table.texts(file, "upgrade").unwrap_or(default.upgrades),
        connect: table.flag(file, "connect").unwrap_or(false),
        grpc_web: table.flag(file, "grpc_web").unwrap_or(false),
        max_body: table.size(file, "max_body"),
        rate_limits: limits::rate_limits(file, table),
        max_in_flight: limits::in_flight(file, table),
        priority: limits::priority(file, table),
    }
}

fn path_match(file: &mut File<'_>, table: &Table<'_, '_>) -> PathMatch {
    let mut found = Vec::new();
    found.extend(table.text(file, "exact").map(PathMatch::Exact));
    found.extend(table.text(file, "prefix").map(PathMatch::Prefix));
    found.extend(table.text(file, "template").map(PathMatch::Template));
    found.extend(table.text(file, "regex").map(PathMatch::Regex));
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => path,
        _ => {
            file.wrong(
                table.span.clone(),
                "a path is one of exact, prefix, template and regex",
                Some("path = { prefix = \"/api\" }".to_owned()),
            );
            PathMatch::Prefix("/".to_owned())
        }
    }
}
