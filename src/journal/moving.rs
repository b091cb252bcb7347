//! What the driver asks for and is asked for, and the moving of what lives in the oldest segment.
//!
//! Only ever the oldest segment is moved, and only while there are more segments than twice what lives
//! needs: so an item is written again once for each time that as much as the whole log holds was
//! appended behind it, and the log takes no more than about twice what lives in it.

use super::codec::Malformed;
use super::index::Place;
use super::log::Write;
use super::reading::{Read, for_each_record};
use super::receivers::{Receivers, put_recipients};
use super::record::Record;
use super::state::Journal;
use super::types::{BLOCK, Damage, Defect, Failure, FileId};

/// Bytes that one step of moving the oldest segment reads, at least.
const MOVE_BYTES: usize = 256 * 1024;

/// How far the oldest segment was moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    segment: u64,
    offset: u32,
    /// Bytes to read at a time: no less than a frame.
    length: u32,
    asked: bool,
}

impl Journal {
    /// A file that has to be made, with the size of a segment allocated.
    pub fn next_allocation(&mut self) -> Option<FileId> {
        self.log.next_allocation()
    }

    /// The file that [`Journal::next_allocation`] gave is there, or there is no space for it. It is not
    /// asked for again before [`Journal::space_returned`].
    pub fn allocated(&mut self, file: FileId, succeeded: bool) {
        self.log.allocated(file, succeeded);
    }

    /// There may be space again.
    pub fn space_returned(&mut self) {
        self.log.retry_allocation();
    }

    /// What is to be written next: all that was appended since the last one. `None` while one is on
    /// its way, while there is no file for it, or after a failure.
    pub fn next_write(&mut self) -> Option<Write> {
        self.log.next_write()
    }

    /// A write has ended, with its sync where it asked for one. After a failure nothing becomes durable
    /// any more.
    ///
    /// # Panics
    /// If it is not the write that was given last.
    pub fn completed(&mut self, write: Write, result: Result<(), Failure>) {
        self.log.completed(write, result);
    }

    /// Nothing was appended for a while: what follows tells the last frame from the tail of a write that
    /// never ended. With [`super::Sync::OnDemand`] it is the sync.
    pub fn seal(&mut self) {
        self.log.want_seal();
    }

    /// A file that is not needed any longer.
    pub fn next_removal(&mut self) -> Option<FileId> {
        self.log.next_removal()
    }

    /// A part of the oldest segment that is to be read, so that what lives in it is written again and its
    /// file becomes free. Asked for when there are too many segments for what lives in them.
    pub fn next_move(&mut self) -> Option<Read> {
        self.count_excess();
        let log = &self.log;
        let oldest = log.segments.front()?;
        let mostly_dead = u64::from(oldest.live) * 2 < u64::from(oldest.items);
        let wanted = self.excess > 0 || (log.is_full() && mostly_dead);
        let blocked = self.damage.is_some() || log.failure().is_some();
        let step = (log.settings.segment_bytes / 4).min(MOVE_BYTES as u32);
        let step = step.next_multiple_of(BLOCK as u32);
        if !wanted
            || blocked
            || log.segments.len() < 3
            || oldest.live == 0
            || oldest.last > log.durable()
            || log.backlog() > step as usize
            || log.room() < 2 * u64::from(step)
        {
            return None;
        }
        let (segment, file, used) = (log.first, oldest.file?, oldest.used);
        let begin = Moving {
            segment,
            offset: 0,
            length: step,
            asked: false,
        };
        let moving = self.moving.get_or_insert(begin);
        if moving.asked {
            return None;
        }
        if moving.segment != segment {
            *moving = begin; // the other one has died
        }
        if moving.offset >= used {
            return None;
        }
        moving.asked = true;
        let length = moving.length.min(used - moving.offset);
        Some(Read {
            file,
            offset: moving.offset,
            length,
        })
    }

    /// What [`Journal::next_move`] asked for was read; less than that, or nothing, where it could not be:
    /// the file may have been used again or removed meanwhile, which is seen here.
    ///
    /// # Errors
    /// It is not what was written there. The segment stays, and nothing is moved any more.
    pub fn moved(&mut self, read: Read, bytes: &[u8]) -> Result<(), Damage> {
        let Some(mut moving) = self.moving.take() else {
            return Ok(());
        };
        moving.asked = false;
        if moving.segment != self.log.first || moving.offset != read.offset {
            self.moving = Some(moving);
            return Ok(()); // it died meanwhile
        }
        let bytes = bytes.get(..read.length as usize).unwrap_or_default();
        match self.move_frames(&mut moving, read, bytes) {
            Ok(()) => {
                self.moving = Some(moving);
                Ok(())
            }
            Err((offset, what)) => {
                let damage = Damage {
                    file: read.file,
                    offset,
                    what,
                };
                self.damage = Some(damage);
                Err(damage)
            }
        }
    }

    /// Counts the segments that are too many, once for each that comes or goes.
    fn count_excess(&mut self) {
        let log = &self.log;
        let now = (log.first, log.segments.len());
        if self.counted == now {
            return;
        }
        self.counted = now;
        let living = log.segments.iter().filter(|segment| segment.items > 0);
        let living: u64 = living
            .map(|segment| {
                u64::from(segment.used) * u64::from(segment.live) / u64::from(segment.items)
            })
            .sum();
        let needed = living.div_ceil(u64::from(log.settings.segment_bytes)) as usize;
        let allowed = 2 * needed + log.settings.slack_segments as usize;
        self.excess = log.segments.len().saturating_sub(allowed);
    }

    fn move_frames(
        &mut self,
        moving: &mut Moving,
        read: Read,
        bytes: &[u8],
    ) -> Result<(), (u32, Defect)> {
        let used = self.log.segments.front().map_or(0, |segment| segment.used);
        let mut at = 0;
        if bytes.is_empty() {
            return Err((read.offset, Defect::FrameLost));
        }
        while at < bytes.len() {
            let offset = read.offset as usize + at;
            let opened = self.expect(moving.segment, offset, read.file, &bytes[at..]);
            let (header, records) = match opened {
                Ok(opened) => opened,
                // It may be cut off by what was asked for; the next step reads it.
                Err(_) if read.offset as usize + bytes.len() < used as usize => {
                    if at == 0 {
                        moving.length = moving.length.saturating_mul(2);
                    }
                    break;
                }
                Err(defect) => return Err((offset as u32, defect)),
            };
            let segment = moving.segment;
            for_each_record(&header, records, |within, record| {
                self.move_record(Place::new(segment, offset + within), record)
            })
            .map_err(|Malformed| (offset as u32, Defect::Record))?;
            at += header.size();
        }
        moving.offset = read.offset + at as u32;
        Ok(())
    }

    /// Writes a record of the oldest segment again, if it is the one that the index names.
    fn move_record(&mut self, from: Place, record: Record<'_>) -> Result<(), Malformed> {
        let Some((id, _)) = record.begins() else {
            return Ok(());
        };
        let Some((place, count)) = self.index.get(id) else {
            return Ok(());
        };
        if place != from {
            return Ok(());
        }
        // What it took the place of is in no younger segment.
        let moved = match record {
            Record::Message {
                message, receivers, ..
            } => {
                let mut encoded = Vec::new();
                let retained = self.with_living(id, receivers, |living| {
                    let mut living = living.to_vec();
                    put_recipients(&mut living, &mut encoded);
                    count as usize > living.len()
                });
                let receivers = Receivers::trusted(&encoded);
                let copy = Record::Message {
                    id,
                    retained,
                    replaces: None,
                    message,
                    receivers,
                };
                self.log.append(|base, out| copy.encode(base, out))
            }
            record => self.append(&record.without_replaced()),
        };
        // It fitted a segment before.
        let place = moved.map_err(|_| Malformed)?;
        self.index.set_place(id, place);
        self.log.died(from);
        self.log.born(place);
        Ok(())
    }
}
