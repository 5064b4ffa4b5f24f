//! What an auditor asks of a directory of receipts, or of a copy of one: do lines and digests hold, under which key.

use std::fs;
use std::path::Path;

use zen_audit::{LogKey, SegmentFinding, verify_segments};

use super::ReceiptsError;
use super::place::{Place, failed};

/// Checks all segments against all digests. Without a key that somebody else kept, the one that lies there is taken, and
/// whoever could write there could have made all of it.
pub fn verify(directory: &Path, key: Option<LogKey>) -> Result<(LogKey, SegmentFinding), ReceiptsError> {
    let place = Place::at(directory);
    let key = key.map_or_else(|| place.public(), Ok)?;
    let digests = place.digests()?.into_keys().map(|number| place.read_digest(number));
    let digests = digests.collect::<Result<Vec<_>, _>>()?;
    let mut unread = None;
    // One at a time: all of them together may be larger than memory.
    let segments = place.segments()?.into_keys().map_while(|number| {
        let path = place.segment(number);
        match fs::read(&path).map_err(failed(&path)) {
            Ok(bytes) => Some((number, bytes)),
            Err(error) => {
                unread = Some(error);
                None
            }
        }
    });
    let finding = verify_segments(&digests, segments, &key);
    unread.map_or(Ok((key, finding)), Err)
}
