//! Runs queries on a thread of its own, so that the loop keeps moving however long the database takes, and rows are
//! parsed while others are written.

use std::ops::ControlFlow;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::influx::client::{AskError, QueryClient};
use super::record::SourceRow;
use super::slices::Slice;

/// Rows that are handed over together.
const PIECE_ROWS: usize = 500;
/// Pieces that wait to be taken.
const PIECES: usize = 8;

/// A part of an answer.
pub enum Piece {
    /// Some rows.
    Rows(Vec<SourceRow>),
    /// There are no more.
    End,
    /// The answer is incomplete.
    Failed(AskError),
}

/// The thread that asks.
pub struct Reading {
    questions: Sender<(Slice, Sender<Piece>)>,
}

impl Reading {
    /// Starts the thread. It ends with this handle.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn start(client: QueryClient) -> std::io::Result<Reading> {
        let (questions, asked) = bounded::<(Slice, Sender<Piece>)>(1);
        thread::Builder::new().name("query".to_owned()).spawn(move || {
            for (slice, pieces) in asked {
                answer(&client, slice, &pieces);
            }
        })?;
        Ok(Reading { questions })
    }

    /// Asks for a slice. Dropping the receiver ends the query.
    #[must_use]
    pub fn ask(&self, slice: Slice) -> Receiver<Piece> {
        let (pieces, taken) = bounded(PIECES);
        // The thread lives as long as this handle; if not, the receiver says so.
        let _ = self.questions.send((slice, pieces));
        taken
    }
}

fn answer(client: &QueryClient, slice: Slice, pieces: &Sender<Piece>) {
    let mut rows = Vec::with_capacity(PIECE_ROWS);
    let asked = client.ask(slice, |row| {
        rows.push(row);
        if rows.len() < PIECE_ROWS {
            return ControlFlow::Continue(());
        }
        let full = std::mem::replace(&mut rows, Vec::with_capacity(PIECE_ROWS));
        match pieces.send(Piece::Rows(full)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    let last = match asked {
        Ok(()) => Piece::End,
        Err(AskError::Left) => return,
        Err(error) => Piece::Failed(error),
    };
    // Nobody may be there any more.
    if !rows.is_empty() && pieces.send(Piece::Rows(rows)).is_err() {
        return;
    }
    let _ = pieces.send(last);
}
