//! Plain streams on both engines.

use super::*;
use crate::clock;
use crate::runtime::{Options, Rung, run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

pub(crate) fn on_core<F: Future + 'static>(main: impl Fn() -> F + Send + Copy + 'static) {
    for first_rung in [Rung::Deferred, Rung::Epoll] {
        std::thread::spawn(move || {
            let options = Options { first_rung, ..Options::default() };
            run(&options, |_| {}, |_| main()).expect("a core starts");
        })
        .join()
        .expect("no panic");
    }
}

pub(crate) fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    (Stream::new(server.into()).expect("registers"), client)
}

#[test]
fn a_dropped_wait_loses_no_byte() {
    on_core(|| async {
        let (mut stream, mut client) = pair();
        // The read is posted by a wait that is given up before anything arrives.
        let gone = first(stream.fill(Size::Small), crate::runtime::yield_now()).await;
        assert!(matches!(gone, Either::Right(())));
        client.write_all(b"kept").expect("writes");
        assert_eq!(stream.fill(Size::Small).await.expect("reads"), 4);
        assert_eq!(stream.buffered(), b"kept");
    });
}

#[test]
fn a_deadline_ends_a_posted_read_and_leaves_writing_open() {
    on_core(|| async {
        let (mut stream, mut client) = pair();
        stream.deadline().arm(clock::now() + 20_000_000, Ends::Read);
        assert_eq!(stream.fill(Size::Small).await.expect("an end"), 0);
        assert!(stream.timed_out());
        stream.write_all(b"408").await.expect("still writable");
        let mut got = [0; 3];
        client.read_exact(&mut got).expect("reads");
        assert_eq!(&got, b"408");
    });
}

#[test]
fn dropping_a_stream_with_a_posted_read_closes_its_descriptor() {
    on_core(|| async {
        let (mut stream, mut client) = pair();
        let _ = first(stream.fill(Size::Small), crate::runtime::yield_now()).await;
        drop(stream);
        for _ in 0..3 {
            crate::runtime::yield_now().await;
        }
        crate::deadline::sleep_until(clock::now() + 1).await;
        assert_eq!(client.read(&mut [0; 8]).expect("an end"), 0);
    });
}

#[test]
fn a_connect_to_nobody_is_refused_and_a_full_socket_waits() {
    on_core(|| async {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
        let refused = Stream::connect(&Address::Tcp(free), clock::now() + 1_000_000_000).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));

        let (stream, mut client) = pair();
        let reader = std::thread::spawn(move || {
            let mut total = 0;
            let mut chunk = vec![0; 1 << 20];
            loop {
                match client.read(&mut chunk) {
                    Ok(0) | Err(_) => return total,
                    Ok(count) => total += count,
                }
            }
        });
        let bulk = vec![7u8; 32 << 20];
        stream.write_all_vectored(b"head", &bulk).await.expect("writes");
        drop(stream);
        assert_eq!(reader.join().expect("no panic"), bulk.len() + 4);
    });
}

#[test]
fn a_closed_idle_connection_is_not_quiet() {
    on_core(|| async {
        let (mut stream, client) = pair();
        assert!(stream.is_quiet());
        drop(client);
        assert!(!stream.is_quiet());
    });
}

#[test]
fn what_waits_for_an_idle_connection_is_small() {
    on_core(|| async {
        let (stream, _client) = pair();
        let pump = stream.pump.as_ref().map_or(0, |pump| size_of_val(&**pump));
        let own = size_of::<Stream>();
        println!("pump {pump}, stream {own}, slot {}", size_of::<Slot>());
        assert!(pump > 0 && pump + own + size_of::<Slot>() <= 512, "{pump} bytes to read, {own} of its own");
    });
}

#[test]
fn leaving_shows_without_a_read_and_an_end_alone_is_none() {
    on_core(|| async {
        let (stream, mut client) = pair();
        assert!(!stream.has_left(Some(1000)));
        client.write_all(b"0123456789").expect("writes");
        assert!(!stream.has_left(Some(1000)), "more may come");
        client.shutdown(std::net::Shutdown::Write).expect("ends");
        while socket::standing(stream.fd) != socket::Standing::Ended(10) {
            crate::runtime::yield_now().await;
        }
        assert!(!stream.has_left(Some(10)) && !stream.has_left(None), "all of it is there, or may be");
        assert!(stream.has_left(Some(11)));

        let (stream, client) = pair();
        socket::reset_on_close(std::os::fd::AsRawFd::as_raw_fd(&client));
        drop(client);
        while socket::standing(stream.fd) != socket::Standing::Over {
            crate::runtime::yield_now().await;
        }
        assert!(stream.has_left(None));
    });
}

#[test]
fn what_a_peer_takes_of_a_full_socket_is_known() {
    on_core(|| async {
        let (stream, mut client) = pair();
        let chunk = vec![7u8; 1 << 20];
        while stream.try_write(&chunk).is_ok() {}
        let full = socket::unsent(stream.fd);
        assert!(full > 0);
        // Too little to make room in it.
        let mut some = vec![0; 256 << 10];
        client.read_exact(&mut some).expect("reads");
        while socket::unsent(stream.fd) >= full {
            crate::runtime::yield_now().await;
        }
    });
}
