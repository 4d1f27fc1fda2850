//! Doors for the fuzz targets in `aggregator/fuzz`: readers of stored bytes, whose checksums are
//! made right, as hardly any bytes have a right one.

use roaring::RoaringBitmap;
use uptime_proto::CLASSES;

use super::blob;
use super::segment::SegmentReader;

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes
}

/// The bytes as a compacted day, but for the checksum: refused, or parts that ascend by their keys.
///
/// # Panics
/// When it finds a fault.
pub fn stored_segment(body: &[u8]) {
    let Ok(mut segment_reader) = SegmentReader::open(&sealed(body)) else { return };
    let mut last = None;
    while let Some(Ok((key, fact))) = segment_reader.next(|key| key.probe.is_multiple_of(2)) {
        assert!(last.is_none_or(|last| last < key), "parts do not ascend");
        assert_eq!(fact.is_some(), key.probe.is_multiple_of(2), "what is wanted is answered");
        last = Some(key);
    }
}

/// The bytes as the sets of one part, but for the checksum: refused, or sets that are written and
/// read again as the same.
///
/// # Panics
/// When it finds a fault.
pub fn stored_sets(body: &[u8]) {
    let none = RoaringBitmap::new;
    let base: [RoaringBitmap; CLASSES] =
        [(0..40).collect(), [7].into(), none(), [9].into(), none(), [9].into()];
    let Ok(sets) = blob::decode(&sealed(body), |_| Some(&base)) else { return };
    let again = blob::encode(&sets, None);
    assert_eq!(blob::decode(&again, |_| None).as_ref(), Ok(&sets));
}
