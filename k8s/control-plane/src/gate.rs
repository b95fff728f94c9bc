//! A gate between one client and the API server: while it is closed that client is cut off, and nobody else is.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// What flows; those that have ended are dropped when another one comes.
    streams: Vec<TcpStream>,
}

/// Passes bytes on as they are, so what it carries stays encrypted. It ends with the process.
#[derive(Clone, Debug)]
pub struct Gate {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// An open one before this port of loopback.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn open(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let gate = Self { port: listener.local_addr()?.port(), state: Arc::default() };
        let own = gate.clone();
        std::thread::Builder::new().name("gate".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                // Whom the server does not take is told by a connection that ends.
                let _ = own.pass(client, to);
            }
        })?;
        Ok(gate)
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections, and takes no more of them; or takes them again.
    pub fn set_closed(&self, closed: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = closed;
        if closed {
            for stream in state.streams.drain(..) {
                // One that has ended cannot be ended again.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn pass(&self, client: TcpStream, to: u16) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", to))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Ok(());
        }
        state.streams.retain(|stream| stream.peer_addr().is_ok());
        state.streams.extend([client.try_clone()?, server.try_clone()?]);
        drop(state);
        for (mut from, mut into) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            std::thread::Builder::new().name("gate".to_owned()).spawn(move || {
                // However it ends, it ends for both.
                let _ = io::copy(&mut from, &mut into);
                let _ = from.shutdown(Shutdown::Both);
                let _ = into.shutdown(Shutdown::Both);
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_closed_gate_cuts_what_flows_and_takes_nothing_until_it_is_opened() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut client in server.incoming().flatten() {
                std::thread::spawn(move || io::copy(&mut client.try_clone().unwrap(), &mut client));
            }
        });
        let gate = Gate::open(port).unwrap();
        let echo = |stream: &mut TcpStream| {
            let mut byte = [0];
            stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).is_ok()
        };
        let connect = || TcpStream::connect(("127.0.0.1", gate.port())).unwrap();
        let mut first = connect();
        assert!(echo(&mut first));
        gate.set_closed(true);
        assert!(!echo(&mut first), "cut");
        assert!(!echo(&mut connect()), "not taken");
        gate.set_closed(false);
        assert!(echo(&mut connect()));
    }
}
