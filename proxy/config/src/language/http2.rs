//! `http2 = {...}`.

use onehop_plan::model::Http2;

use crate::reader::{File, Table};

pub(super) fn http2(file: &mut File<'_>, owner: &Table<'_, '_>, listener: bool) -> Http2 {
    let mut http2 = Http2::default();
    let Some(table) = owner.table(file, "http2") else {
        return http2;
    };
    let size = |file: &mut File<'_>, name| table.size(file, name).map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    http2.window = size(file, "window").unwrap_or(http2.window);
    http2.connection_window = size(file, "connection_window");
    http2.max_streams = table.number(file, "max_streams").unwrap_or(http2.max_streams);
    http2.ping_interval = table.duration(file, "ping_interval");
    if listener {
        http2.enabled = table.flag(file, "enabled").unwrap_or(true);
        http2.max_age = table.duration(file, "max_age");
    } else {
        http2.header_timeout = table.duration(file, "header_timeout").unwrap_or(http2.header_timeout);
    }
    http2
}
