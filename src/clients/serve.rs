//! Serves clients: a bounded number of requests of each and of all, each with a time limit, none for a client that left.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::counter;
use quinn::{RecvStream, SendStream, VarInt};
use stockmesh_proto::wire::WireError;
use stockmesh_proto::wire::client::{Answer, Failure, FailureCode, Request};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::turns::Turns;
use super::{answer, tell};
use crate::error::WriteError;
use crate::limits::{
    CLIENT_IDLE_TIME_MAX, CLIENT_REQUEST_TIME_MAX, CLIENT_REQUESTS_MAX, CLIENT_REQUESTS_PER_SECOND_MAX,
    CLIENT_STREAMS_MAX, CLIENT_WAIT_MAX, CLIENTS_REQUESTS_MAX, FRAME_TIME_MAX, REFUSAL_TIME_MAX,
};
use crate::net::{ClientLink, CloseCode, FrameError, Node, read_frame};
use crate::replica::Replica;
use crate::store::Store;

/// Whole copies of what may be long, members and holds, that are made for clients at once.
const LONG_ANSWERS_MAX: usize = 4;

/// What the requests of all clients share. It does not keep the store open.
struct Serving {
    replica: Weak<Replica>,
    requests: Semaphore,
    long_answers: Semaphore,
    turns: Turns,
}

/// One client.
struct Session {
    link: ClientLink,
    requests: Semaphore,
    streams: Semaphore,
    serving: Arc<Serving>,
}

/// Serves the clients of a store, if it takes any, for as long as it is open.
pub(crate) fn serve(store: &Store) {
    let Some(node) = &store.replica().node else { return };
    let Some(queue) = node.clients() else { return };
    let serving = Arc::new(Serving {
        replica: Arc::downgrade(store.replica()),
        requests: Semaphore::new(CLIENTS_REQUESTS_MAX),
        long_answers: Semaphore::new(LONG_ANSWERS_MAX),
        turns: Turns::default(),
    });
    Node::spawn(node, accept(queue, serving));
}

async fn accept(mut queue: mpsc::Receiver<ClientLink>, serving: Arc<Serving>) {
    // Dropped with this task, and all of them with it.
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            link = queue.recv() => match link {
                Some(link) => {
                    let serving = Arc::clone(&serving);
                    let (requests, streams) = (Semaphore::new(CLIENT_REQUESTS_MAX), Semaphore::new(CLIENT_STREAMS_MAX));
                    clients.spawn(serve_client(Arc::new(Session { link, requests, streams, serving })));
                }
                None => return,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Serves one client until it leaves, is idle for too long, or breaks a rule.
async fn serve_client(session: Arc<Session>) {
    let connection = session.link.connection.clone();
    // Dropped with this task: what is under way for a client that left is given up.
    let mut tasks: JoinSet<Result<(), String>> = JoinSet::new();
    let mut pace = Pace::new();
    let mut idle_since = Instant::now();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => {
                let Ok((send, receive)) = opened else { return };
                pace.wait().await;
                // All that QUIC lets it open are taken at once, so that what is not read yet stays little.
                tasks.spawn(serve_stream(send, receive, Arc::clone(&session)));
            }
            opened = connection.accept_uni() => {
                if opened.is_ok() {
                    session.link.punish("a client has no use for a stream in one direction");
                }
                return;
            }
            Some(ended) = tasks.join_next() => {
                idle_since = Instant::now();
                if let Ok(Err(violation)) = ended {
                    return session.link.punish(&violation);
                }
            }
            () = tokio::time::sleep_until(idle_since + CLIENT_IDLE_TIME_MAX), if tasks.is_empty() => {
                let reason = format!("nothing was asked for {} s", CLIENT_IDLE_TIME_MAX.as_secs());
                return connection.close(CloseCode::Closing.code(), reason.as_bytes());
            }
        }
    }
}

/// How fast requests are taken.
struct Pace {
    second: Instant,
    taken: u32,
}

impl Pace {
    fn new() -> Self {
        Self { second: Instant::now(), taken: 0 }
    }

    /// Waits for the next second if this one had enough of them.
    async fn wait(&mut self) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        if self.taken >= CLIENT_REQUESTS_PER_SECOND_MAX {
            tokio::time::sleep_until(self.second + Duration::from_secs(1)).await;
            *self = Self::new();
        }
        self.taken += 1;
    }
}

/// Reads one request and answers it. An error is a rule that the client broke.
async fn serve_stream(mut send: SendStream, mut receive: RecvStream, session: Arc<Session>) -> Result<(), String> {
    let frame = match read_frame(&mut receive, Request::BYTES_MAX, Some(FRAME_TIME_MAX)).await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err("a stream was opened and ended empty".into()),
        Err(FrameError::Silent) => return Err("a stream was left silent".into()),
        Err(FrameError::Violation(reason)) => return Err(reason),
        // The client left.
        Err(_) => return Ok(()),
    };
    // One request for each stream: what else it sends is thrown away unread.
    let _ = receive.stop(VarInt::from_u32(0));
    let gone = send.stopped();
    let answered = async {
        let failed = match Request::decode(&frame) {
            Ok(request) => answer(request, &mut send, &session).await,
            Err(WireError::UnknownKind(kind)) => Err(Failure::new(
                FailureCode::Unsupported,
                format!("the node knows no request of kind {kind}: its software is older; nothing was changed"),
            )),
            Err(error) => Err(Failure::new(FailureCode::Invalid, error)),
        };
        if let Err(failure) = failed {
            let _ = answer::send(&mut send, &Answer::Failed(Box::new(failure))).await;
        }
        let _ = send.finish();
        // Until it is read, the client counts as busy.
        let _ = tokio::time::timeout(REFUSAL_TIME_MAX, send.stopped()).await;
    };
    tokio::select! {
        () = answered => {}
        // It does not want the answer any more, or is gone itself.
        _ = gone => {}
    }
    Ok(())
}

/// Answers one request; what it returns is still to be told.
async fn answer(request: Request, send: &mut SendStream, session: &Session) -> Result<(), Failure> {
    counter!("stockmesh_client_requests_total").increment(1);
    let serving = &session.serving;
    let store = serving.replica.upgrade().map(Store::of).ok_or_else(|| tell::failure(&WriteError::Closed))?;
    // Whatever it is that ends the stream early, the client notices that the last page is missing.
    match request {
        Request::List(list) => {
            let _permit = try_acquire(&session.streams)?;
            let _ = answer::list(list, store, send).await;
            Ok(())
        }
        Request::Watch(watch) => {
            let _permit = try_acquire(&session.streams)?;
            let changes = answer::watch(&watch, &store)?;
            drop(store);
            let _ = answer::tell_changes(changes, watch, send).await;
            Ok(())
        }
        Request::Members(_) => {
            let _permit = acquire(&serving.long_answers).await?;
            let _ = limited(answer::members(store, send)).await;
            Ok(())
        }
        Request::Holds(_) => {
            let _permit = acquire(&serving.long_answers).await?;
            let _ = limited(answer::holds(store, send)).await;
            Ok(())
        }
        Request::Get(get) => {
            let _permits = (acquire(&session.requests).await?, acquire(&serving.requests).await?);
            let _ = limited(answer::get(get, store, send)).await;
            Ok(())
        }
        request => {
            let _permits = (acquire(&session.requests).await?, acquire(&serving.requests).await?);
            let answer = answer_at_once(request, store, session).await?;
            drop(_permits);
            let _ = answer::send(send, &answer).await;
            Ok(())
        }
    }
}

async fn answer_at_once(request: Request, store: Store, session: &Session) -> Result<Answer, Failure> {
    let is_write = request.is_write();
    if is_write && !session.link.may_write() {
        let text = "the certificate of this client may only read; nothing was changed";
        return Err(Failure::new(FailureCode::ReadOnly, text));
    }
    let turn = match answer::reference(&request) {
        None => None,
        Some(reference) => match session.serving.turns.begin(reference).await {
            Some(turn) => Some(turn),
            None => return Err(superseded()),
        },
    };
    let newer = async {
        match &turn {
            Some(turn) => turn.superseded().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        answered = limited(answer::at_once(request, &store)) => answered.unwrap_or_else(|| {
            let late = format!("it took more than {} s", CLIENT_REQUEST_TIME_MAX.as_secs());
            Err(if is_write {
                Failure::indeterminate(FailureCode::TimedOut, format!("{late}: it may be done or not"))
            } else {
                Failure::new(FailureCode::TimedOut, late)
            })
        }),
        () = newer => Err(superseded()),
    }
}

fn superseded() -> Failure {
    let text = "the same reference was asked for again: this request may be done or not, the answer to the other tells";
    Failure::indeterminate(FailureCode::Busy, text)
}

async fn limited<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(CLIENT_REQUEST_TIME_MAX, work).await.ok()
}

async fn acquire(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    match tokio::time::timeout(CLIENT_WAIT_MAX, semaphore.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => {
            Err(Failure::new(FailureCode::Busy, "the node has too many requests; nothing was changed: try again later"))
        }
    }
}

fn try_acquire(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    semaphore.try_acquire().map_err(|_| {
        let text = format!("this client has {CLIENT_STREAMS_MAX} lists and subscriptions open already, the limit");
        Failure::new(FailureCode::Busy, text)
    })
}
