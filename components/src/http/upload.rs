//! [`Upload`]: a file as the body of a request, read in chunks as fast as the server takes them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use router_core::exchange::Region;
use router_core::failure::{ErrorKind, Failure};
use tokio::task::JoinHandle;

/// The body of a request.
pub(super) struct Upload {
    region: Region,
    /// How much was given to the connection.
    offset: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Upload {
    /// All of a file.
    pub(super) fn new(region: Region) -> Self {
        Self { region, offset: 0, reading: None }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        /// One of them is in memory at a time.
        const CHUNK_BYTES: usize = 256 << 10;
        let this = self.get_mut();
        if this.is_end_stream() {
            return Poll::Ready(None);
        }
        let (region, offset) = (&this.region, this.offset);
        let reading = this.reading.get_or_insert_with(|| {
            let region = region.clone();
            tokio::task::spawn_blocking(move || region.read(offset, CHUNK_BYTES))
        });
        let read = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        let chunk = read.map_err(io::Error::other).flatten().map(|chunk| {
            this.offset += chunk.len() as u64;
            Frame::data(chunk)
        });
        Poll::Ready(Some(chunk.map_err(|error| Failure::new(ErrorKind::of(&error), error))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.region.length()
    }

    /// Known, so the request says how long it is.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.region.length() - self.offset)
    }
}
