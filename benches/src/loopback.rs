//! The loopback interface of a fresh network namespace: it is there, down, and without this nobody in it reaches anybody.
//!
//! The second address is for programs that ask the resolver for addresses of the kinds that this machine has: an interface that has
//! 127.0.0.1 and nothing else does not count as having IPv4.

use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
/// Request and acknowledgement.
const ASK: u16 = 1 | 4;
const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
/// Loopback is the first interface of every namespace.
const LOOPBACK: u32 = 1;
const UP: u32 = 1;
const INET: u8 = 2;
/// Addresses that are valid on this host alone.
const SCOPE_HOST: u8 = 254;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER: usize = 16;

/// A netlink message with its header.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence and sender: one question is under way at a time.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

fn ask(route: &OwnedFd, what: &str, message: &[u8]) -> Result<()> {
    sendto(route, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).with_context(|| format!("asking for {what}"))?;
    let mut answer = [0_u8; 4_096];
    let (length, _) = recv(route, &mut answer, RecvFlags::empty()).with_context(|| format!("reading the answer to {what}"))?;
    let code = answer[..length].get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(-code)).with_context(|| what.to_owned()),
        None => bail!("{what}: an answer of {length} bytes"),
    }
}

/// Brings loopback up, and gives it 127.0.0.2 beside 127.0.0.1.
pub(crate) fn raise() -> Result<()> {
    // Protocol 0 of netlink is the one for routes, addresses and links.
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None).context("opening a netlink socket")?;
    let mut link = vec![0_u8; 4];
    for word in [LOOPBACK, UP, UP] {
        link.extend_from_slice(&word.to_ne_bytes());
    }
    ask(&route, "loopback to be up", &message(NEW_LINK, ASK, &link))?;
    let mut address = vec![INET, 8, 0, SCOPE_HOST];
    address.extend_from_slice(&LOOPBACK.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        address.extend_from_slice(&8_u16.to_ne_bytes());
        address.extend_from_slice(&attribute.to_ne_bytes());
        address.extend_from_slice(&[127, 0, 0, 2]);
    }
    ask(&route, "a second loopback address", &message(NEW_ADDRESS, ASK | CREATE_OR_REPLACE, &address))
}
