//! A client that sends what it is told, byte for byte, and reads answers strictly.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;
use super::wire::{Broken, Fields, Length, Reader, announced, broken, wait_until_read};

pub struct Client {
    reader: Reader,
}

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// How the body's end was marked.
    pub length: Length,
    /// The 1xx responses before it.
    pub interim: Vec<(u16, Fields)>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        self.fields.one(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.fields))
    }

    /// Says that the connection ends with it.
    pub fn says_close(&self) -> bool {
        self.fields.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { reader: Reader::new(stream) }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("send");
        self
    }

    /// For bytes the gateway may no longer want.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Broken> {
        self.stream().write_all(bytes.as_ref()).map_err(|error| broken(error.kind()))
    }

    /// Sends, and returns once the gateway has read it.
    #[track_caller]
    pub fn send_alone(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(bytes);
        wait_until_read(self.stream());
        self
    }

    /// `GET target` with only a Host, and its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).response()
    }

    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The answer to a request of that method: the answer to HEAD has no body.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    pub fn try_response(&mut self) -> Result<Response, Broken> {
        self.try_response_to("GET")
    }

    pub fn try_response_to(&mut self, method: &str) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let head = self.reader.head()?;
            let (version, status) = status_line(&head.line)?;
            if (100..200).contains(&status) {
                interim.push((status, head.fields));
                continue;
            }
            let length = match announced(&head.fields)? {
                _ if method == "HEAD" || status == 204 || status == 304 => Length::Exactly(0),
                Some(length) => length,
                None => Length::UntilClose,
            };
            let (body, trailers) = self.reader.body(length)?;
            let fields = head.fields;
            return Ok(Response { version, status, fields, body, trailers, length, interim });
        }
    }

    /// Only the 1xx, while the request is still being sent.
    #[track_caller]
    pub fn interim(&mut self) -> u16 {
        let head = self.reader.head().expect("an interim response");
        let (_, status) = status_line(&head.line).unwrap();
        assert!((100..200).contains(&status), "not interim: {}", head.line);
        status
    }

    /// The head of a response whose body is read later, or not.
    #[track_caller]
    pub fn head(&mut self) -> (u16, Fields) {
        let head = self.reader.head().expect("a response head");
        (status_line(&head.line).unwrap().1, head.fields)
    }

    #[track_caller]
    pub fn body(&mut self, length: Length) -> Vec<u8> {
        self.reader.body(length).expect("a whole body").0
    }

    /// The gateway closes, cleanly and without another byte.
    #[track_caller]
    pub fn expect_close(&mut self) {
        assert_eq!(self.next_event(), Broken::Closed, "the gateway should have closed");
    }

    /// The gateway closes, whether or not bytes of ours were left unread.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        let event = self.next_event();
        assert!(matches!(event, Broken::Closed | Broken::Reset), "{event:?}");
    }

    /// What ends the wait for another message.
    fn next_event(&mut self) -> Broken {
        match self.reader.head() {
            Ok(head) => Broken::Grammar(format!("surplus: {}", head.line)),
            Err(broken) => broken,
        }
    }

    /// The connection is still of use.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        let response = self.get("/alive");
        assert!(response.status < 500, "{response:?}");
    }

    /// Sends no more, still reads.
    pub fn half_close(&mut self) -> &mut Self {
        self.stream().shutdown(Shutdown::Write).unwrap();
        self
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.reader.stream
    }
}

fn status_line(line: &str) -> Result<(String, u16), Broken> {
    let wrong = || Broken::Grammar(format!("status line: {line:?}"));
    let (version, rest) = line.split_once(' ').ok_or_else(wrong)?;
    let (status, _reason) = rest.split_once(' ').ok_or_else(wrong)?;
    let three_digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if version != "HTTP/1.1" || !three_digits {
        return Err(wrong());
    }
    Ok((version.to_owned(), status.parse().unwrap()))
}
