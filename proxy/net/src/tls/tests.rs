//! Both ends of TLS on both engines, with certificates made for the test.

use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::{Accept, Connect, HandshakeError};
use crate::stream::tests::{on_core, pair};
use crate::sys::buf::Size;
use crate::{Stream, clock};

const SOON: u64 = 5_000_000_000;

fn configs(versions: &[&'static SupportedProtocolVersion]) -> (Accept, Connect) {
    let certified = rcgen::generate_simple_self_signed(["server.test".to_owned()]).expect("a certificate");
    let der: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .expect("a server");
    server.enable_secret_extraction = true;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("tickets");
    let mut roots = RootCertStore::empty();
    roots.add(der).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("server.test").expect("a name");
    (Accept { config: Arc::new(server) }, Connect { config: Arc::new(client), name })
}

async fn shaken(accept: &Accept, connect: &Connect) -> (Stream, Stream) {
    let (mut server, client) = pair();
    let mut client = Stream::new(client.into()).expect("registers");
    let due = clock::now() + SOON;
    let (served, connected) = both(server.accept_tls(accept, due), client.connect_tls(connect, due)).await;
    served.expect("serves");
    connected.expect("connects");
    (server, client)
}

async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut one, mut other) = (None, None);
    std::future::poll_fn(|cx| {
        if one.is_none()
            && let std::task::Poll::Ready(value) = a.as_mut().poll(cx)
        {
            one = Some(value);
        }
        if other.is_none()
            && let std::task::Poll::Ready(value) = b.as_mut().poll(cx)
        {
            other = Some(value);
        }
        if one.is_some() && other.is_some() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    (one.expect("done"), other.expect("done"))
}

#[test]
fn both_versions_carry_bytes_both_ways_and_end_in_order() {
    on_core(|| async {
        for version in [&TLS13, &TLS12] {
            let (accept, connect) = configs(&[version]);
            let (mut server, mut client) = shaken(&accept, &connect).await;
            let info = server.tls().expect("TLS").clone();
            assert_eq!(info.version, version.version);
            assert_eq!(info.server_name.as_deref(), Some("server.test"));
            assert_eq!((server.alpn(), client.alpn()), (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..])));
            client.write_all_vectored(b"head ", b"body").await.expect("writes");
            assert_eq!(server.fill(Size::Small).await.expect("reads"), 9);
            assert_eq!(server.buffered(), b"head body");
            server.consume(5);
            client.write_all(b"more").await.expect("writes");
            server.fill(Size::Small).await.expect("reads");
            assert_eq!(server.buffered(), b"bodymore");
            server.shutdown_write().expect("ends");
            assert_eq!(client.fill(Size::Small).await.expect("an end"), 0);
            assert!(!client.failed());
            // Half-closed: the other way still carries.
            client.write_all(b"late").await.expect("writes");
            server.fill(Size::Small).await.expect("reads");
            assert_eq!(server.buffered(), b"bodymorelate");
            drop(client);
            assert_eq!(server.fill(Size::Small).await.expect("an end"), 0);
        }
    });
}

#[test]
fn bulk_survives_a_full_socket_and_every_buffer_size() {
    on_core(|| async {
        for (version, size) in [(&TLS13, Size::Large), (&TLS13, Size::Medium), (&TLS12, Size::Large)] {
            let (accept, connect) = configs(&[version]);
            let (mut server, client) = shaken(&accept, &connect).await;
            let bulk: Vec<u8> = (0..12_000_000u32).map(|at| (at >> 3) as u8).collect();
            let sent = bulk.clone();
            crate::runtime::spawn(async move {
                client.write_all_vectored(&sent[..77], &sent[77..]).await.expect("writes");
            });
            let mut at = 0;
            loop {
                let count = server
                    .fill(size)
                    .await
                    .unwrap_or_else(|e| panic!("{version:?} {size:?} at {at} +{} {e}", server.buffered().len()));
                if count == 0 {
                    break;
                }
                // Not all at once, so that what is left is moved as well.
                let take = server.buffered().len().div_ceil(2);
                assert!(server.buffered()[..take] == bulk[at..at + take], "at {at}");
                server.consume(take);
                at += take;
            }
            assert_eq!(at + server.buffered().len(), bulk.len());
            assert!(server.buffered() == &bulk[at..]);
        }
    });
}

#[test]
fn a_second_connection_resumes_and_a_pooled_one_stays_quiet() {
    on_core(|| async {
        for version in [&TLS13, &TLS12] {
            let (accept, connect) = configs(&[version]);
            let (server, mut client) = shaken(&accept, &connect).await;
            // The tickets are taken up, and are no sign of life.
            assert!(client.is_quiet());
            server.write_all(b"x").await.expect("writes");
            // It may take the kernel a moment to carry it over.
            let due = clock::now() + SOON;
            while client.is_quiet() {
                assert!(clock::now() < due, "{version:?}: a byte has come");
            }
            assert_eq!(client.buffered(), b"x");
            let (server, client) = shaken(&accept, &connect).await;
            assert!(server.tls().expect("TLS").resumed, "{version:?}");
            assert!(client.tls().expect("TLS").resumed);
        }
    });
}

#[test]
fn a_cut_shows_and_a_changed_record_is_refused() {
    on_core(|| async {
        let (accept, connect) = configs(&[&TLS13]);
        let (mut server, client) = shaken(&accept, &connect).await;
        client.reset_on_close();
        crate::sys::socket::shutdown(client.raw_fd(), true);
        let error = server.fill(Size::Small).await.expect_err("a cut");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(server.failed());

        let (mut server, client) = shaken(&accept, &connect).await;
        crate::sys::socket::send(
            client.raw_fd(),
            &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        )
        .expect("sends");
        let error = server.fill(Size::Small).await.expect_err("no record of ours");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    });
}

#[test]
fn a_peer_that_stops_is_timed_out_and_plain_text_is_told_apart() {
    on_core(|| async {
        use std::io::Write;
        let (accept, connect) = configs(&[&TLS13]);
        for first in [&b""[..], &[22, 3, 1, 2, 0, 1, 0]] {
            let (mut server, mut client) = pair();
            client.write_all(first).expect("writes");
            let failed = server.accept_tls(&accept, clock::now() + 30_000_000).await;
            assert!(matches!(failed, Err(HandshakeError::TimedOut)), "{failed:?}");
        }
        let (mut server, mut client) = pair();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("writes");
        let failed = server.accept_tls(&accept, clock::now() + SOON).await;
        assert!(matches!(failed, Err(HandshakeError::NotTls)), "{failed:?}");
        assert_eq!(server.buffered(), b"GET / HTTP/1.1\r\n\r\n", "still there to be answered");

        let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = crate::Address::Tcp(silent.local_addr().expect("bound"));
        let mut stream = Stream::connect(&address, clock::now() + SOON).await.expect("connects");
        let failed = stream.connect_tls(&connect, clock::now() + 30_000_000).await;
        assert!(matches!(failed, Err(HandshakeError::TimedOut)), "{failed:?}");
    });
}

#[test]
fn keys_change_when_asked_and_who_asks_without_reading_is_cut_off() {
    on_core(|| async {
        let (accept, connect) = configs(&[&TLS13]);
        let (mut server, mut client) = shaken(&accept, &connect).await;
        for _ in 0..5 {
            client.ask_for_key_update();
            client.write_all(b"under new keys").await.expect("writes");
            server.fill(Size::Small).await.expect("reads");
            assert_eq!(server.buffered(), b"under new keys");
            server.consume(14);
            server.write_all(b"and back").await.expect("writes");
            client.fill(Size::Small).await.expect("reads");
            assert_eq!(client.buffered(), b"and back");
            client.consume(8);
        }
        // The server's socket is full, and its peer only asks.
        let mut refused = false;
        for _ in 0..500 {
            // Buffers grow while they are filled.
            while server.try_write(&[0; 60_000]).is_ok() {}
            client.ask_for_key_update();
            client.write_all(b"x").await.expect("writes");
            refused |= server.fill(Size::Small).await.is_err();
            if refused {
                break;
            }
        }
        assert!(refused, "answers pile up");
    });
}

#[test]
fn who_refuses_the_other_says_so_with_an_alert() {
    on_core(|| async {
        for version in [&TLS13, &TLS12] {
            // The client believes another root than the server's.
            let (accept, _) = configs(&[version]);
            let (_, connect) = configs(&[version]);
            let (mut server, client) = pair();
            let mut client = Stream::new(client.into()).expect("registers");
            let due = clock::now() + SOON;
            let (served, connected) = both(server.accept_tls(&accept, due), client.connect_tls(&connect, due)).await;
            assert!(
                matches!(connected, Err(HandshakeError::Refused(rustls::Error::InvalidCertificate(_)))),
                "{connected:?}"
            );
            assert!(matches!(served, Err(HandshakeError::Refused(rustls::Error::AlertReceived(_)))), "{served:?}");
        }
    });
}

#[test]
fn what_a_peer_may_not_say_ends_the_connection_and_what_it_may_does_not() {
    use super::hostile::Hostile;
    use super::record::{ALERT, DATA, HANDSHAKE};
    let refused = |version, kind, content: &[u8], kind_of_error, part: &str| {
        let (accept, connect) = configs(&[version]);
        let mut peer = Hostile::new(&accept, &connect).expect("shakes hands");
        peer.say(DATA, b"before").expect("goes through");
        let error = peer.say(kind, content).expect_err(part);
        assert!(error.kind() == kind_of_error && error.to_string().contains(part), "{version:?}: {error}");
        assert_eq!(peer.heard(), b"before");
    };
    use std::io::ErrorKind::{ConnectionReset, InvalidData};
    for version in [&TLS13, &TLS12] {
        refused(version, ALERT, &[2, 80], ConnectionReset, "InternalError");
        refused(version, ALERT, &[2], InvalidData, "cannot be read");
        refused(version, 24, b"heartbeat", InvalidData, "may not come here");
        refused(version, HANDSHAKE, &[20, 0, 0, 0], InvalidData, "may not come here");
        refused(version, HANDSHAKE, &[4, 2, 0, 0], InvalidData, "cannot be read");
    }
    // A ClientHello in the middle: no renegotiation in TLS 1.3; in TLS 1.2 it is declined, again and again.
    refused(&TLS13, HANDSHAKE, &[1, 0, 0, 0], InvalidData, "may not come here");
    let (accept, connect) = configs(&[&TLS12]);
    let mut peer = Hostile::new(&accept, &connect).expect("shakes hands");
    assert_eq!(peer.say(HANDSHAKE, &[1, 0, 0, 0]).expect("declined"), 0);
    peer.say(DATA, b"it goes on").expect("goes through");
    assert_eq!(peer.heard(), b"it goes on");
    assert!((0..100).any(|_| peer.say(HANDSHAKE, &[1, 0, 0, 0]).is_err()), "asked for ever");
    // A warning is none of our business, an end is, and records without data are a matter of patience.
    let (accept, connect) = configs(&[&TLS13]);
    let mut peer = Hostile::new(&accept, &connect).expect("shakes hands");
    peer.say(ALERT, &[1, 90]).expect("the user has cancelled something");
    peer.say(DATA, b"more").expect("goes through");
    peer.say(ALERT, &[1, 0]).expect("an end in order");
    assert!(peer.has_ended() && peer.heard() == b"more");
    let mut peer = Hostile::new(&accept, &connect).expect("shakes hands");
    assert!((0..100).any(|_| peer.say(DATA, b"").is_err()), "empty records for ever");
    // Too long, sealed or not; and a record that nobody has sealed.
    for bytes in [&[23, 3, 3, 0x41, 1][..], &[21, 3, 3, 0, 2, 2, 40], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut peer = Hostile::new(&accept, &connect).expect("shakes hands");
        assert_eq!(peer.take(bytes, Size::Large).expect_err("no record").kind(), InvalidData);
    }
}

#[test]
fn whatever_a_script_says_only_what_was_sealed_is_heard() {
    // Fuzzing (`proxy/net/fuzz`) goes on from here.
    let mut state = 7u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for version in [&TLS13, &TLS12] {
        let (accept, connect) = configs(&[version]);
        for length in 0..300 {
            let script: Vec<u8> = (0..length).map(|_| next()).collect();
            super::hostile::play(&accept, &connect, &script);
        }
    }
}

#[test]
fn many_handshakes_at_once_all_get_their_turn() {
    on_core(|| async {
        let (accept, connect) = configs(&[&TLS13]);
        let (accept, connect) = (std::rc::Rc::new(accept), std::rc::Rc::new(connect));
        let done = std::rc::Rc::new(std::cell::Cell::new(0));
        for _ in 0..100 {
            let (accept, connect, done) = (accept.clone(), connect.clone(), done.clone());
            crate::runtime::spawn(async move {
                shaken(&accept, &connect).await;
                done.set(done.get() + 1);
            });
        }
        let mut turns = 0u64;
        while done.get() < 100 {
            crate::deadline::sleep_until(clock::now() + 1_000_000).await;
            turns += 1;
            assert!(turns < 20_000, "only {} of 100", done.get());
        }
        assert_eq!(super::handshakes_waiting(), 0);
    });
}
