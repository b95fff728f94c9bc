//! The daemon over TCP, as anybody on the network meets it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{Client, PATIENCE};

/// The TCP address that the system chose.
pub fn address(daemon: &Client) -> SocketAddr {
    let log = daemon.log();
    let at = log.rfind("tcp=").unwrap_or_else(|| panic!("no address in\n{log}")) + 4;
    log[at..].split_whitespace().next().unwrap().parse().unwrap()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything that is answered until the other end closes.
pub fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _end = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request on a connection of its own: status, JSON, head.
pub fn tcp(address: SocketAddr, method: &str, path: &str, authorization: Option<&str>, body: &str) -> (u16, Value, String) {
    let authorization = authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
    send(address, method, path, &authorization, body)
}

/// The same with any headers, each with its line end.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value, String) {
    let mut stream = connect(address);
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let answer = rest(stream);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null), head.to_owned())
}
