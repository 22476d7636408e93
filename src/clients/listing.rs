//! Answers that go on: products in pages, and changes.

use std::collections::VecDeque;

use stockmesh_proto::wire::client::{Answer, Change, ProductInfo};

use super::connection::Answers;
use super::error::ClientError;
use crate::limits::ANSWER_TIME_MAX;

fn lost(reason: impl Into<String>) -> ClientError {
    ClientError::Lost { reason: reason.into() }
}

/// Products in the order of their keys, read as they are wanted. Made by [`Client::list`](super::Client::list).
#[derive(Debug)]
pub struct Listing {
    answers: Answers,
    page: VecDeque<ProductInfo>,
    is_last: bool,
}

impl Listing {
    pub(super) fn new(answers: Answers) -> Self {
        Self { answers, page: VecDeque::new(), is_last: false }
    }

    /// The next product; `None` after the last.
    ///
    /// # Errors
    /// If the node refuses, or goes away before the last: [`ClientError::Lost`].
    pub async fn next(&mut self) -> Result<Option<ProductInfo>, ClientError> {
        loop {
            if let Some(product) = self.page.pop_front() {
                return Ok(Some(product));
            }
            if self.is_last {
                return Ok(None);
            }
            match self.answers.next(Some(ANSWER_TIME_MAX)).await.map_err(lost)? {
                Some(Answer::Products(page)) => {
                    self.is_last = page.last;
                    self.page = page.products.into();
                }
                Some(Answer::Failed(failure)) => return Err(ClientError::told(&failure, None)),
                Some(_) => return Err(lost("the node answered with something else")),
                None => return Err(lost("the node ended the list before its end")),
            }
        }
    }
}

/// Changes from now on, for as long as the node is there. Made by [`Client::watch`](super::Client::watch).
#[derive(Debug)]
pub struct Watching {
    answers: Answers,
}

impl Watching {
    /// Waits until the node has subscribed.
    pub(super) async fn begin(mut answers: Answers) -> Result<Self, ClientError> {
        match answers.next(Some(ANSWER_TIME_MAX)).await.map_err(lost)? {
            Some(Answer::Watching(_)) => Ok(Self { answers }),
            Some(Answer::Failed(failure)) => Err(ClientError::told(&failure, None)),
            _ => Err(lost("the node answered with something else")),
        }
    }

    /// The next change. Waits for as long as there is none and the node is there. A client that lags is told so by
    /// [`ChangeKind::Lagged`](super::ChangeKind::Lagged), and then of everything that it watches.
    ///
    /// # Errors
    /// If the node closes or cannot be reached any more: watch anew then, and read what there is.
    pub async fn next(&mut self) -> Result<Change, ClientError> {
        match self.answers.next(None).await.map_err(lost)? {
            Some(Answer::Change(change)) => Ok(*change),
            Some(Answer::Failed(failure)) => Err(lost(failure.text.as_str())),
            Some(_) => Err(lost("the node answered with something else")),
            None => Err(lost("the node ended the subscription")),
        }
    }
}
