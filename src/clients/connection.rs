//! One connection to a node: a request, and its answers.

use std::time::Duration;

use quinn::{Connection, RecvStream, WriteError};
use stockmesh_proto::wire::client::{Answer, Failure, Greeting, Request, Welcome};

use super::tell::software;
use crate::limits::{ANSWER_TIME_MAX, CONNECT_TIME_MAX};
use crate::net::{CloseCode, Dialled, FrameError, Identity, dial_as_client, explain, read_frame};

/// A node that welcomed this client.
#[derive(Debug)]
pub(super) struct Open {
    dialled: Dialled,
    pub(super) welcome: Welcome,
}

/// A request got no answer.
#[derive(Debug)]
pub(super) enum Missed {
    /// It did not leave.
    NotSent(String),
    /// It may have arrived.
    Lost(String),
}

impl Missed {
    pub(super) fn reason(self) -> String {
        match self {
            Self::NotSent(reason) | Self::Lost(reason) => reason,
        }
    }
}

impl Open {
    /// Connects, and waits until the node says who it is: only then it has judged this client's certificate.
    ///
    /// # Errors
    /// Why it could not be.
    pub(super) async fn open(address: &str, identity: &Identity) -> Result<Self, String> {
        let dialled = dial_as_client(address, identity).await?;
        let hello = Request::Hello(Greeting { software: software() });
        let greeting = async {
            let mut answers = ask(&dialled.connection, &hello).await.map_err(Missed::reason)?;
            match answers.next(Some(CONNECT_TIME_MAX)).await? {
                Some(Answer::Welcome(welcome)) => Ok(welcome),
                Some(Answer::Failed(failure)) => Err(failure.text.to_string()),
                _ => Err("the node answered the hello with something else".to_owned()),
            }
        };
        let late = |_| format!("no answer to the hello within {} s", CONNECT_TIME_MAX.as_secs());
        let welcome = tokio::time::timeout(CONNECT_TIME_MAX, greeting).await.map_err(late)??;
        Ok(Self { dialled, welcome })
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        let connection = &self.dialled.connection;
        connection.close_reason().is_none().then(|| connection.clone())
    }

    /// Says farewell, and waits a little until the node has heard it.
    pub(super) async fn close(&self) {
        self.dialled.connection.close(CloseCode::Closing.code(), b"the client is done");
        let _ = tokio::time::timeout(CONNECT_TIME_MAX, self.dialled.endpoint.wait_idle()).await;
    }
}

/// The answers to one request.
#[derive(Debug)]
pub(super) struct Answers {
    connection: Connection,
    stream: RecvStream,
}

/// Sends a request.
pub(super) async fn ask(connection: &Connection, request: &Request) -> Result<Answers, Missed> {
    let frame = request.encode().map_err(|error| Missed::NotSent(error.to_string()))?;
    let opening = tokio::time::timeout(CONNECT_TIME_MAX, connection.open_bi()).await;
    let opened = opening.map_err(|_| Missed::NotSent("the node takes no more requests of this client".into()))?;
    let (mut send, stream) = opened.map_err(|error| Missed::NotSent(explain(&error)))?;
    let writing = tokio::time::timeout(ANSWER_TIME_MAX, send.write_all(&frame)).await;
    match writing.map_err(|_| Missed::Lost("the node does not take the request in".into()))? {
        // It has read what it wanted, and answers.
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(error) => return Err(Missed::Lost(ended(connection, &error.to_string()))),
    }
    let _ = send.finish();
    Ok(Answers { connection: connection.clone(), stream })
}

impl Answers {
    /// The next answer, or `None` where they end. `within` bounds the wait for its first byte.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn next(&mut self, within: Option<Duration>) -> Result<Option<Answer>, String> {
        match read_frame(&mut self.stream, Answer::BYTES_MAX, within).await {
            Ok(Some(frame)) => Answer::decode(&frame).map(Some).map_err(|error| error.to_string()),
            Ok(None) => Ok(None),
            Err(FrameError::Silent) => {
                let seconds = within.unwrap_or_default().as_secs();
                Err(ended(&self.connection, &format!("the node did not answer within {seconds} s")))
            }
            Err(error) => Err(ended(&self.connection, &error.to_string())),
        }
    }

    /// The only answer.
    pub(super) async fn only(mut self) -> Result<Result<Answer, Failure>, Missed> {
        match self.next(Some(ANSWER_TIME_MAX)).await {
            Ok(Some(Answer::Failed(failure))) => Ok(Err(*failure)),
            Ok(Some(answer)) => Ok(Ok(answer)),
            Ok(None) => Err(Missed::Lost(ended(&self.connection, "the node ended the request without an answer"))),
            Err(reason) => Err(Missed::Lost(reason)),
        }
    }
}

/// What the connection's end says is more telling than what the stream saw of it.
fn ended(connection: &Connection, error: &str) -> String {
    connection.close_reason().map_or_else(|| error.to_owned(), |reason| explain(&reason))
}
