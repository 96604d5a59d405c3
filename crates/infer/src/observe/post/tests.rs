//! Receivers of every kind, on a port of their own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Stream};
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Longer than any test: whoever is waited for is patient, and whoever answers is quick, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct Text(Vec<u8>);

impl Message for Text {
    fn put_headers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-own: 1\r\n");
    }

    fn body(&self) -> &[u8] {
        &self.0
    }
}

/// What a receiver does with one message.
enum Do {
    Answer(String),
    /// Answers and closes the connection.
    Last(String),
    /// Closes it at once.
    Close,
    /// Says nothing.
    Hang,
}

/// What came: on which connection, and the body.
type Came = Receiver<(usize, Vec<u8>)>;

/// A receiver that does what it is told for a connection and a message on it.
fn receiver(todo: impl Fn(usize, usize) -> Do + Send + 'static) -> (Target, Came) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/a/b?c=d#e", listener.local_addr().expect("an address"));
    let (sender, came) = channel();
    std::thread::spawn(move || {
        for (connection, stream) in listener.incoming().flatten().enumerate() {
            converse(stream, connection, &todo, &sender);
        }
    });
    (Target::of(&url).expect("a plain URL"), came)
}

fn converse(
    mut stream: Stream,
    connection: usize,
    todo: &impl Fn(usize, usize) -> Do,
    sender: &std::sync::mpsc::Sender<(usize, Vec<u8>)>,
) {
    let mut buffer = Vec::new();
    for count in 0.. {
        let Some(body) = next(&mut stream, &mut buffer) else { return };
        let _ = sender.send((connection, body));
        match todo(connection, count) {
            Do::Answer(text) => drop(stream.write_all(text.as_bytes())),
            Do::Last(text) => {
                let _ = stream.write_all(text.as_bytes());
                return;
            }
            Do::Close => return,
            Do::Hang => {
                while next(&mut stream, &mut buffer).is_some() {}
                return;
            }
        }
    }
}

/// The body of the next message.
fn next(stream: &mut Stream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut piece = [0; 65536];
    let mut more = |buffer: &mut Vec<u8>| match stream.read(&mut piece) {
        Ok(count @ 1..) => {
            buffer.extend_from_slice(&piece[..count]);
            Some(())
        }
        _ => None,
    };
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(buffer)?;
    };
    let head = String::from_utf8(buffer[..end].to_vec()).expect("text");
    assert!(head.starts_with("POST /a/b?c=d HTTP/1.1\r\nhost: 127.0.0.1:"), "{head}");
    assert!(head.contains("\r\nx-own: 1\r\n"), "{head}");
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length: usize = length.split('\r').next().and_then(|text| text.parse().ok()).expect("a length");
    while buffer.len() < end + length {
        more(buffer)?;
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(body)
}

/// Sends as many messages as one batch each; what became of each by its text.
async fn send(line: &mut Line, target: &Target, texts: &[&str]) -> Vec<(String, Outcome)> {
    let mut batch = texts.iter().map(|text| Text(text.as_bytes().to_vec())).collect();
    let mut outcomes = Vec::new();
    line.send(target, &mut batch, &mut outcomes).await;
    let text = |message: Text| String::from_utf8(message.0).expect("text");
    outcomes.into_iter().map(|(message, outcome)| (text(message), outcome)).collect()
}

fn seen(came: &Came) -> Vec<(usize, String)> {
    came.try_iter().map(|(at, body)| (at, String::from_utf8(body).expect("text"))).collect()
}

const SEVEN: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];

/// All seven messages, each on the connection with that number.
fn on(connections: [usize; 7]) -> Vec<(usize, String)> {
    connections.into_iter().zip(SEVEN).map(|(at, text)| (at, text.to_owned())).collect()
}

fn all_are_answered(outcomes: &[(String, Outcome)]) {
    let wanted: Vec<(String, Outcome)> = SEVEN.iter().map(|text| ((*text).to_owned(), Ok(200))).collect();
    assert_eq!(outcomes, wanted);
}

#[tokio::test]
async fn one_connection_carries_more_and_more_at_once() {
    let (target, came) = receiver(|_, _| Do::Answer(OK.into()));
    let mut line = Line::new(LONG, LONG);
    all_are_answered(&send(&mut line, &target, &SEVEN).await);
    assert_eq!((line.depth(), seen(&came)), (8, on([0; 7])));
    for _ in 0..6 {
        let all: Vec<&str> = SEVEN.iter().copied().cycle().take(100).collect();
        assert_eq!(send(&mut line, &target, &all).await.len(), 100);
    }
    assert_eq!(line.depth(), DEPTH_MAX);
    assert!(seen(&came).iter().all(|(connection, _)| *connection == 0));
}

#[tokio::test]
async fn a_slow_receiver_gets_one_message_at_a_time() {
    let (target, came) = receiver(|_, _| Do::Answer(OK.into()));
    let mut line = Line::new(LONG, Duration::ZERO);
    line.depth = 8;
    all_are_answered(&send(&mut line, &target, &SEVEN).await);
    assert_eq!((line.depth(), seen(&came)), (1, on([0; 7])));
}

#[tokio::test]
async fn receivers_that_close_with_each_answer_get_each_message_once() {
    for last in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nhow long this is nobody says",
    ] {
        let (target, came) = receiver(move |_, _| Do::Last(last.into()));
        all_are_answered(&send(&mut Line::new(LONG, LONG), &target, &SEVEN).await);
        assert_eq!(seen(&came), on([0, 1, 2, 3, 4, 5, 6]), "{last}");
    }
}

#[tokio::test]
async fn what_a_closed_connection_did_not_answer_is_sent_once_more() {
    // Three are answered; the next round begins with the fourth, and the connection closes at the fifth.
    let (target, came) = receiver(|connection, count| match (connection, count) {
        (0, 4) => Do::Close,
        _ => Do::Answer(OK.into()),
    });
    all_are_answered(&send(&mut Line::new(LONG, LONG), &target, &SEVEN).await);
    let mut seen = seen(&came);
    assert_eq!(seen.remove(4), (0, "4".to_owned()), "it was sent before, too");
    assert_eq!(seen, on([0, 0, 0, 0, 1, 1, 1]));
}

#[tokio::test]
async fn a_connection_that_closes_amid_many_loses_none() {
    let (target, came) = receiver(|connection, count| match (connection, count) {
        (0, 20) => Do::Close,
        _ => Do::Answer(OK.into()),
    });
    let texts: Vec<String> = (0..60).map(|at: u32| at.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let outcomes = send(&mut Line::new(LONG, LONG), &target, &texts).await;
    assert!(outcomes.len() == 60 && outcomes.iter().all(|(_, outcome)| *outcome == Ok(200)), "{outcomes:?}");
    let again: Vec<String> = seen(&came).into_iter().filter(|came| came.0 == 1).map(|came| came.1).collect();
    assert_eq!(again, texts[20..]);
}

#[tokio::test]
async fn a_message_that_is_never_answered_is_lost_and_the_others_are_not() {
    let (target, came) = receiver(|connection, _| match connection {
        0..3 => Do::Close,
        _ => Do::Answer(OK.into()),
    });
    let outcomes = send(&mut Line::new(LONG, LONG), &target, &["a", "b", "c", "d"]).await;
    let lost: Vec<bool> = outcomes.iter().map(|(_, outcome)| outcome.is_err()).collect();
    // Nothing says that a new connection was given up, so nothing is sent on another.
    assert_eq!(lost, [true, true, true, false]);
    assert_eq!(seen(&came).len(), 4);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_kept_costs_no_message() {
    let (target, came) = receiver(|connection, _| match connection {
        0 => Do::Last(OK.into()),
        _ => Do::Answer(OK.into()),
    });
    let mut line = Line::new(LONG, LONG);
    assert_eq!(send(&mut line, &target, &["a"]).await, [("a".to_owned(), Ok(200))]);
    // The receiver closes now or soon: either is seen before a message or after it.
    assert_eq!(send(&mut line, &target, &["b"]).await, [("b".to_owned(), Ok(200))]);
    assert_eq!(seen(&came).last(), Some(&(1, "b".to_owned())));
}

#[tokio::test]
async fn bodies_of_answers_are_passed_over_however_they_come() {
    let answers = [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        OK,
    ];
    let long = format!("HTTP/1.1 202 Accepted\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let (target, came) = receiver(move |_, count| {
        Do::Answer(match count {
            4 => long.clone(),
            count => answers[count % 4].into(),
        })
    });
    let outcomes = send(&mut Line::new(LONG, LONG), &target, &SEVEN).await;
    let statuses: Vec<u16> = outcomes.into_iter().map(|(_, outcome)| outcome.expect("answered")).collect();
    assert_eq!(statuses, [200, 204, 503, 200, 202, 204, 503]);
    assert_eq!(seen(&came), on([0; 7]));
}

#[tokio::test]
async fn no_answer_and_none_that_is_legal_are_told_apart() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(20_000));
    let illegal = ["SSH-2.0\r\n\r\n".to_owned(), "HTTP/1.1 101 Other\r\n\r\n".to_owned(), long];
    for (text, word) in illegal.into_iter().zip(["no legal", "another protocol", "too long"]) {
        let (target, _came) = receiver(move |_, _| Do::Answer(text.clone()));
        let outcomes = send(&mut Line::new(LONG, LONG), &target, &["a"]).await;
        assert!(matches!(&outcomes[0].1, Err(why) if why.contains(word)), "{word}: {:?}", outcomes[0].1);
    }
    let (target, _came) = receiver(|_, _| Do::Hang);
    let outcomes = send(&mut Line::new(Duration::from_millis(20), LONG), &target, &["a"]).await;
    assert!(matches!(&outcomes[0].1, Err(why) if why.contains("no answer")), "{:?}", outcomes[0].1);
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let target = Target::of(&format!("http://{gone}")).expect("a plain URL");
    let outcomes = send(&mut Line::new(LONG, LONG), &target, &["a", "b"]).await;
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Err(why) if why.contains("connect"))));
}

#[tokio::test]
async fn large_messages_and_large_answers_meet_without_a_standstill() {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let (target, came) = receiver(move |_, _| Do::Answer(answer.clone()));
    let mut batch: VecDeque<Text> = (0..8).map(|at| Text(vec![at; 2_000_000])).collect();
    let mut outcomes = Vec::new();
    Line::new(LONG, LONG).send(&target, &mut batch, &mut outcomes).await;
    assert!(outcomes.len() == 8 && outcomes.iter().all(|(_, outcome)| *outcome == Ok(200)));
    let came: Vec<(usize, Vec<u8>)> = came.try_iter().collect();
    assert!(came.iter().enumerate().all(|(at, (_, body))| *body == vec![at as u8; 2_000_000]));
}

#[test]
fn only_plain_urls_are_posted_to() {
    let begin = |url: &str| Target::of(url).map(|target| String::from_utf8(target.begin).expect("text"));
    let rest = "user-agent: slipway\r\naccept: */*\r\n";
    assert_eq!(begin("http://log"), Some(format!("POST / HTTP/1.1\r\nhost: log\r\n{rest}")));
    assert_eq!(
        begin("http://[::1]:90/ä"),
        Some(format!("POST /%C3%A4 HTTP/1.1\r\nhost: [::1]:90\r\n{rest}"))
    );
    assert_eq!(
        Target::of("http://[::1]:90/").map(|target| (target.host, target.port)),
        Some(("::1".into(), 90))
    );
    for other in ["https://log/", "http://user@log/", "http://:word@log/", "nothing"] {
        assert!(begin(other).is_none(), "{other}");
    }
}
