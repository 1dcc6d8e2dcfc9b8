//! Clients that are slow, silent, or gone.

use onehop_tests::{Client, Origin, Proxy, eventually};

#[test]
fn a_slow_head_is_408_and_a_slow_body_too() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            connection.body(&head);
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start(&origin.config("header_timeout = \"1s\"\nbody_timeout = \"500ms\"", "", ""));
    let mut client = proxy.connect("edge");
    let response = client.ask("GET / HTTP/1.1\r\nHos");
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    assert!(client.is_closed());
    let mut client = proxy.connect("edge");
    let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(response.status, 408, "{}", response.head);
    // One that never says anything is closed without an answer.
    assert!(proxy.connect("edge").is_closed());
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "header-timeout") >= 2.0);
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "body-timeout") >= 1.0);
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("idle_timeout = \"100ms\"", "", ""));
    let mut client = proxy.connect("edge");
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_deadline_fires_while_another_connection_keeps_the_core_polling() {
    let origin = Origin::echo();
    let mut config = origin.config("header_timeout = \"300ms\"", "", "");
    config.insert_str(0, "[runtime]\nbusy_poll = \"100ms\"\n");
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let mut slow = proxy.connect("edge");
    slow.send("GET / HTTP/1.1\r\nHos");
    let mut busy = proxy.connect("edge");
    let started = std::time::Instant::now();
    let watcher = std::thread::spawn(move || slow.response().status);
    while !watcher.is_finished() {
        assert_eq!(busy.get("/").status, 200);
        assert!(started.elapsed().as_secs() < 10, "the deadline does not fire");
    }
    assert_eq!(watcher.join().expect("no panic"), 408);
}

#[test]
fn a_client_that_leaves_releases_the_upstream() {
    let (told, gone) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::start(move |connection| {
        connection.head();
        connection.wait_for_end();
        told.lock().expect("no panic").send(()).expect("the test waits");
    });
    let proxy = Proxy::start(&origin.config("", "timeout = \"off\"", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request arrived", || origin.accepted() == 1);
    drop(client);
    gone.recv_timeout(std::time::Duration::from_secs(30)).expect("the upstream connection is closed");
    eventually("nothing is left", || proxy.connections() == 0);
}

/// Nothing but its leaving ends the exchange: no time of anybody's is short.
#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_releases_the_upstream() {
    let origin = Origin::start(move |connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&origin.config("body_timeout = \"10m\"", "timeout = \"off\"", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    assert_eq!(client.read(10), b"5\r\nfirst\r\n");
    drop(client);
    eventually("nothing is left", || proxy.connections() == 0 && proxy.metric("onehop_cluster_active", "") == 0.0);
    assert_eq!(proxy.metric("onehop_listener_faults_total", "reason=\"client-left\""), 1.0);
}

/// It takes no more than its buffers hold, ends its side, and reads all of it after that.
#[test]
fn a_client_that_half_closes_in_the_middle_of_an_answer_gets_the_rest() {
    const LENGTH: usize = 20_000_000;
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
        connection.send(vec![b'x'; LENGTH]);
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&origin.config("body_timeout = \"10m\"", "timeout = \"off\"", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    client.finish();
    assert_eq!(client.read(LENGTH).len(), LENGTH);
}

/// What it sends after the answer began is not read to its end, and yet no reset takes the answer away from it.
#[test]
fn an_upload_that_is_answered_early_gets_its_answer() {
    use std::io::Write;
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much");
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    // It has two seconds for it: more than one try, for machines that stand still.
    let answered = (0..5).any(|_| {
        let mut client = proxy.connect("edge");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
        eventually("the answer has begun", || client.stream().peek(&mut [0]).is_ok());
        let mut stream = client.stream();
        stream.set_nonblocking(true).expect("a socket option");
        // Until all buffers on the way are full, or the connection was reset.
        let full = loop {
            if let Err(error) = stream.write_all(&[b'x'; 1 << 16]) {
                break error.kind() == std::io::ErrorKind::WouldBlock;
            }
        };
        stream.set_nonblocking(false).expect("a socket option");
        // Those who closed too early had a moment for it while it was written.
        full && client.response().text() == "too much"
    });
    assert!(answered);
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    client.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    assert_eq!(client.response().text(), "/half");
}

#[test]
fn a_client_that_never_reads_is_cut_and_held_up_no_one() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            let length = if head.contains("/large") { 50_000_000 } else { 2 };
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
            connection.send(vec![b'x'; length]);
        }
    });
    let proxy = Proxy::start_with(&origin.config("body_timeout = \"500ms\"", "", ""), &["--workers", "1"], None);
    let mut lazy = proxy.connect("edge");
    lazy.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(proxy.connect("edge").get("/small").text(), "xx");
    }
    eventually("the lazy one is cut", || proxy.metric("onehop_listener_faults_total", "write-timeout") >= 1.0);
    // What it did not read was never buffered here.
    assert!(proxy.metric("onehop_core_buffer_bytes", "") < 4_000_000.0);
}

#[test]
fn a_thousand_connections_dropped_at_random_leave_nothing() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    proxy.connect("edge").get("/");
    eventually("the first is over", || proxy.connections() == 0);
    let before = proxy.descriptors();
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n12345678901234567890";
    let mut seed = 1u64;
    let mut open: Vec<Client> = Vec::new();
    for _ in 0..1000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut client = proxy.connect("edge");
        client.send(&request[..(seed >> 33) as usize % (request.len() + 1)]);
        open.push(client);
        if open.len() > 50 {
            open.swap_remove((seed >> 40) as usize % 50);
        }
    }
    open.clear();
    eventually("every connection is gone", || proxy.connections() == 0);
    eventually("every descriptor is closed", || proxy.descriptors() <= before + 40);
    assert_eq!(proxy.connect("edge").get("/still").text(), "/still");
}

#[test]
fn too_large_a_body_is_413() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "max_body = \"1KiB\"", ""));
    let response = proxy.connect("edge").ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n");
    assert_eq!(response.status, 413);
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let response =
        proxy.connect("edge").ask(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
    assert_eq!(response.status, 413);
}

/// Reads the request's head, and then nothing until it is told to.
fn deaf(told: std::sync::mpsc::Receiver<()>) -> (Origin, std::sync::mpsc::Receiver<usize>) {
    let (sender, bodies) = std::sync::mpsc::channel();
    let (sender, told) = (std::sync::Mutex::new(sender), std::sync::Mutex::new(told));
    let origin = Origin::start(move |connection| {
        let Some(head) = connection.head() else { return };
        let _ = told.lock().expect("no panic").recv();
        let body = connection.body(&head);
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = sender.lock().expect("no panic").send(body.len());
    });
    (origin, bodies)
}

/// Nothing but the client's leaving ends it: no time of anybody's is short.
#[test]
fn a_client_that_is_gone_is_noticed_while_its_upload_stands_still() {
    use std::io::Write;
    let (_told, wait) = std::sync::mpsc::channel();
    let (origin, _bodies) = deaf(wait);
    let listener = "body_timeout = \"10m\"";
    let hello = "[[route]]\npath = { exact = \"/hello\" }\nrespond = { text = \"hello\" }";
    let proxy = Proxy::start_with(&origin.config(listener, "timeout = \"off\"", hello), &["--workers", "1"], None);
    for leaves in 1..=2 {
        let mut client = proxy.connect("edge");
        client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut stream = client.stream().try_clone().expect("a descriptor");
        assert_eq!(stream.peek(&mut [0]).expect("an answer"), 1);
        stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).expect("a socket option");
        let framing = ["Content-Length: 1000000000", "Transfer-Encoding: chunked"][leaves - 1];
        let begun = stream.write_all(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n").as_bytes());
        begun.expect("sends");
        // Until all buffers on the way are full: then the proxy reads no more of it. To one that is chunked it is one chunk.
        let mut chunk = b"3b9aca00\r\n".to_vec();
        if leaves == 1 {
            chunk.clear();
        }
        chunk.resize(1 << 20, b'x');
        while stream.write_all(&chunk).is_ok() {
            chunk.fill(b'x');
        }
        let active = || proxy.metric("onehop_cluster_active", "");
        eventually("it is under way", || active() == 1.0);
        // With an answer unread its close is a reset, as that of a client that is killed.
        drop((stream, client));
        let left = || proxy.metric("onehop_listener_faults_total", "reason=\"client-left\"");
        eventually("it has left", || left() == leaves as f64 && active() == 0.0);
    }
}

/// A client that has only half-closed waits for its answer.
#[test]
fn an_upload_whose_end_has_come_is_no_leaving() {
    use std::io::Write;
    let (tell, wait) = std::sync::mpsc::channel();
    let (origin, bodies) = deaf(wait);
    let listener = "body_timeout = \"10m\"";
    let proxy = Proxy::start_with(&origin.config(listener, "timeout = \"off\"", ""), &["--workers", "1"], None);
    let client = proxy.connect("edge");
    let mut stream = client.stream().try_clone().expect("a descriptor");
    let length = 4 << 20;
    let sender = std::thread::spawn(move || {
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
        stream.write_all(&vec![b'x'; length])?;
        stream.shutdown(std::net::Shutdown::Write)
    });
    eventually("it is under way", || proxy.metric("onehop_cluster_active", "") == 1.0);
    // Long enough to be looked at more than once.
    std::thread::sleep(std::time::Duration::from_secs(3));
    tell.send(()).expect("it waits");
    assert_eq!(bodies.recv_timeout(std::time::Duration::from_secs(30)), Ok(length));
    sender.join().expect("no panic").expect("all of it is sent");
}
