//! A name server that says of every name what the test wants.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it says.
#[derive(Clone, Debug)]
pub enum Zone {
    /// These addresses, for a second.
    Addresses(Vec<Ipv4Addr>),
    NoSuchName,
    Nothing,
}

/// Where a question's type stands when its name has been read; behind it come two bytes of class.
const HEADER_BYTES: usize = 12;

pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    pub fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(zone));
        let dns = Self { address, zone: Arc::clone(&zone) };
        thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, sender)) = socket.recv_from(&mut packet) {
                let now = zone.lock().unwrap().clone();
                if let Some(answer) = answer(&packet[..length], &now) {
                    let _ = socket.send_to(&answer, sender);
                }
            }
        });
        dns
    }

    pub fn says(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }

    /// The line of a configuration that asks it, and believes it at once.
    pub fn lines(&self) -> String {
        format!("servers = ['{}']\nttl_max = '1s'\nhold = '0s'\ntimeout = '300ms'", self.address)
    }
}

/// RFC 1035 §4.1.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let name = query[HEADER_BYTES..].iter().position(|byte| *byte == 0)?;
    let question = &query[HEADER_BYTES..HEADER_BYTES + name + 5];
    let for_ipv4 = question[name + 1..name + 3] == [0, 1];
    let addresses = match zone {
        Zone::Nothing => return None,
        Zone::Addresses(addresses) if for_ipv4 => &addresses[..],
        _ => &[],
    };
    let code = if matches!(zone, Zone::NoSuchName) { 3 } else { 0 };
    let mut answer = query[..2].to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        // The name of the question, IPv4, Internet, a second, four bytes.
        answer.extend([0xC0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
