//! TLS records as a hostile or clumsy source cuts them: in pieces, half a message, data behind a goodbye.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets};
use support::client::{Client, github, source_config};
use support::node::{Node, PATIENCE, wait_until};
use support::{GITHUB, Lab, Ports};

mod support;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// `update_requested`, RFC 8446 section 4.6.3.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// One direction's key, and how many records it has sealed.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => panic!("the node prefers AES"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), sequence }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A connection whose records are written by hand, after a handshake and a request that went well.
struct Records {
    socket: TcpStream,
    sending: Direction,
    receiving: Direction,
}

impl Records {
    fn connect(lab: &Lab, address: SocketAddr) -> Self {
        let mut config = ClientConfig::clone(&source_config(lab));
        config.enable_secret_extraction = true;
        let mut client = Client::connect_with(&Arc::new(config), address).unwrap();
        assert_eq!(client.ask(&github(GITHUB, b"{}", "")).status, 202);
        let (connection, socket) = client.tls.into_parts();
        let secrets = connection.dangerous_extract_secrets().unwrap();
        Self { socket, sending: Direction::new(secrets.tx), receiving: Direction::new(secrets.rx) }
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        let header = header_of(inner.len() + 16);
        let nonce = self.sending.nonce();
        self.sending.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).unwrap();
        [&header[..], &inner].concat()
    }

    /// The next record's kind and content; none if the node has closed.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.socket.read_exact(&mut header).ok()?;
        let mut inner = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.socket.read_exact(&mut inner).ok()?;
        let nonce = self.receiving.nonce();
        let opened = self.receiving.key.open_in_place(nonce, Aad::from(header), &mut inner).unwrap();
        let (kind, content) = opened.split_last().unwrap();
        Some((*kind, content.to_vec()))
    }
}

fn header_of(length: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    [DATA, 3, 3, high, low]
}

fn start() -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &lab.ingester_text(ports));
    (lab, ports, node)
}

fn is_answer(record: Option<(u8, Vec<u8>)>, status: &str) -> bool {
    record.is_some_and(|(kind, text)| {
        kind == DATA && text.starts_with(format!("HTTP/1.1 {status} ").as_bytes())
    })
}

#[test]
fn half_a_message_in_front_of_an_answer_harms_nobody() {
    let (lab, ports, _node) = start();
    let mut records = Records::connect(&lab, ports.listen);
    for half in 1..KEY_UPDATE.len() {
        let mut records = Records::connect(&lab, ports.listen);
        // The answer is written while the node holds half a message.
        let request = records.seal(DATA, &github(GITHUB, b"{}", ""));
        let begun = records.seal(HANDSHAKE, &KEY_UPDATE[..half]);
        records.socket.write_all(&[request, begun].concat()).unwrap();
        assert!(is_answer(records.next(), "202"), "{half} bytes");
        // Data may not come between the halves (RFC 8446 section 5.1).
        let request = records.seal(DATA, &github(GITHUB, b"{}", ""));
        records.socket.write_all(&request).unwrap();
        assert_eq!(records.next(), None, "{half} bytes");
    }
    let request = records.seal(DATA, &github(GITHUB, b"{}", ""));
    records.socket.write_all(&request).unwrap();
    assert!(is_answer(records.next(), "202"), "others go on");
}

#[test]
fn keys_change_as_often_as_a_source_asks_and_a_flood_of_it_ends() {
    let (lab, ports, _node) = start();
    let mut client = Client::connect(&lab, ports.listen);
    // More often than rustls lets be asked without data between: data sets its count back.
    for asked in 0..50 {
        client.tls.conn.refresh_traffic_keys().unwrap();
        assert_eq!(client.ask(&github(GITHUB, &vec![b'a'; 400 * asked], "")).status, 202, "{asked}");
    }
    // Several requests behind one change, whose answers have the node's new key.
    client.tls.conn.refresh_traffic_keys().unwrap();
    client.send(&[(); 3].map(|()| github(GITHUB, b"{}", "")).concat());
    assert_eq!([client.answer().status, client.answer().status, client.answer().status], [202; 3]);

    for _ in 0..40 {
        client.tls.conn.refresh_traffic_keys().unwrap();
    }
    let _ = client.try_send(&github(GITHUB, b"{}", ""));
    assert!(client.is_closed(), "forty changes without data");
    assert_eq!(Client::connect(&lab, ports.listen).ask(&github(GITHUB, b"{}", "")).status, 202);
}

#[test]
fn an_idle_connection_with_half_a_message_is_told_goodbye() {
    let (lab, ports, node) = start();
    let mut records = Records::connect(&lab, ports.listen);
    let begun = records.seal(HANDSHAKE, &KEY_UPDATE[..3]);
    records.socket.write_all(&begun).unwrap();
    assert_eq!(records.next(), Some((ALERT, CLOSE_NOTIFY.to_vec())));
    wait_until("closed", || node.metric("zen_source_connections") as usize == 0);
}

#[test]
fn what_comes_behind_a_goodbye_is_not_looked_at() {
    let (lab, ports, node) = start();
    let accepted = || node.metric("zen_events_accepted_total") as usize;
    let mut records = Records::connect(&lab, ports.listen);
    wait_until("the first is counted", || accepted() == 1);
    let goodbye = records.seal(ALERT, &CLOSE_NOTIFY);
    let request = records.seal(DATA, &github(GITHUB, b"{}", ""));
    records.socket.write_all(&[goodbye, request].concat()).unwrap();
    assert_eq!(records.next(), Some((ALERT, CLOSE_NOTIFY.to_vec())));
    assert_eq!(records.next(), None);
    assert_eq!(accepted(), 1);
}

#[test]
fn a_changed_byte_anywhere_ends_the_connection_with_an_alert() {
    let (lab, ports, _node) = start();
    let whole = Records::connect(&lab, ports.listen).seal(DATA, &github(GITHUB, b"{}", "")).len();
    for at in (5..whole).step_by(29) {
        let mut records = Records::connect(&lab, ports.listen);
        let mut request = records.seal(DATA, &github(GITHUB, b"{}", ""));
        request[at] ^= 1;
        records.socket.write_all(&request).unwrap();
        // bad_record_mac, RFC 8446 section 6.2.
        assert_eq!(records.next(), Some((ALERT, vec![2, 20])), "byte {at}");
        assert_eq!(records.next(), None);
    }
}

#[test]
fn records_in_pieces_of_any_length_are_put_together() {
    let (lab, ports, _node) = start();
    for piece in [1, 2, 5, 21, 1000, 16_389] {
        let socket = TcpStream::connect(ports.listen).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(source_config(&lab), name).unwrap();
        connection.set_buffer_limit(None);
        let body = vec![b'a'; if piece < 1000 { 300 } else { 40_000 }];
        connection.writer().write_all(&github(GITHUB, &body, "")).unwrap();
        let mut answer = Vec::new();
        while answer.is_empty() {
            let mut bytes = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut bytes).unwrap();
            }
            for piece in bytes.chunks(piece) {
                (&socket).write_all(piece).unwrap();
            }
            assert!(connection.read_tls(&mut &socket).unwrap() > 0, "pieces of {piece}: closed");
            connection.process_new_packets().unwrap();
            let _ = connection.reader().read_to_end(&mut answer);
        }
        assert!(answer.starts_with(b"HTTP/1.1 202 "), "pieces of {piece}");
    }
}
