//! ZIP. The directory at the end of the archive says what it holds, and the headers before the members do not count:
//! that is how other programs read it, and what a program shows should be what another one unpacks.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rawzip::{CompressionMethod, ErrorKind, ZipFileHeaderRecord, ZipLocator, time::ZipDateTimeKind};

use super::{Extent, Member, Scope, member::Packing};
use crate::input::discover::{has_trace_suffix, is_of_macos};

/// Reads an archive.
pub(super) fn walk(extent: &Extent, scope: &mut Scope<'_>) {
    if let Err(error) = try_walk(extent, scope) {
        let text = match error.kind() {
            ErrorKind::MissingEndOfCentralDirectory => {
                "the ZIP archive is cut off: its directory, which is at its end, \
                is missing; zip -FF may repair it"
                    .to_owned()
            }
            _ => format!("the ZIP archive is damaged: {error}"),
        };
        scope.fault(None, io::Error::new(io::ErrorKind::InvalidData, text));
    }
}

fn try_walk(extent: &Extent, scope: &mut Scope<'_>) -> Result<(), rawzip::Error> {
    // A record of the directory has a name, fields and a comment of up to 64 KiB each.
    let mut buffer = vec![0; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let opened = extent.opened().map_err(rawzip::Error::from)?;
    let archive = ZipLocator::new().locate_in_reader(opened, &mut buffer, extent.len()).map_err(|(_, error)| error)?;
    // The bytes of the members, by their starts.
    let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
    let mut entries = archive.entries(&mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next_entry()? {
        count += 1;
        if scope.is_over() {
            return Ok(());
        }
        let name = name(&entry);
        if name.ends_with(b"/") {
            continue;
        }
        let Some(spot) = scope.member(&name) else { continue };
        let named = has_trace_suffix(&spot.relative);
        if entry.mode().is_symlink() {
            if named {
                scope.pass_over(&spot, "it is a link, and links in archives are not followed");
            }
            continue;
        }
        let method = entry.compression_method();
        let flags = entry.flags();
        let unreadable = if flags.is_encrypted() || flags.has_strong_encryption() || method == CompressionMethod::AES {
            Some("it is encrypted; unpack it first".to_owned())
        } else if !matches!(method, CompressionMethod::STORE | CompressionMethod::DEFLATE | CompressionMethod::ZSTD) {
            let name = method.name().map_or_else(|| method.as_u16().to_string(), str::to_owned);
            Some(format!("it is packed with a method that is not read, {name}; unpack it first"))
        } else {
            None
        };
        if let Some(why) = unreadable {
            // Nobody can see whether it is a trace. Only what macOS adds for its own use surely is none.
            if is_of_macos(&spot.relative) {
                scope.pass_over(&spot, &why);
            } else {
                scope.fault(Some(&spot), io::Error::other(why));
            }
            continue;
        }
        let (start, end) = match archive.get_entry(entry.wayfinder()) {
            Ok(found) => found.compressed_data_range(),
            Err(error) => {
                scope.fault(Some(&spot), io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
                continue;
            }
        };
        let part = extent.part(start, end - start);
        // Many members that are the same bytes would be a bomb.
        let before = taken.range(..end.max(start + 1)).next_back();
        if before.is_some_and(|(_, last)| *last > start) {
            scope.fault(Some(&spot), io::Error::other("its bytes are those of another member too"));
            continue;
        }
        let packing = match method {
            // Zstandard is a layer like that of a file.
            CompressionMethod::ZSTD => Packing::None,
            _ => Packing::Zip {
                deflated: method == CompressionMethod::DEFLATE,
                size: entry.uncompressed_size_hint(),
                crc: entry.crc32(),
            },
        };
        let modified = modified(&entry);
        let members = scope.archives.members;
        scope.look_into(&spot, Member { extent: part, packing, modified });
        if scope.archives.members > members {
            taken.insert(start, end);
        }
    }
    if count < archive.entries_hint() {
        let text = format!("its directory lists {count} members, and its end says {}", archive.entries_hint());
        scope.fault(None, io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

/// The name of a member, with slashes: some programs of Windows write backslashes.
fn name(entry: &ZipFileHeaderRecord<'_>) -> Vec<u8> {
    let path = entry.file_path();
    let bytes = path.as_bytes();
    if bytes.contains(&b'/') {
        return bytes.to_owned();
    }
    bytes.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// When a member was modified. Most programs write it in UTC beside the local time of their machine, which is taken for
/// UTC if there is nothing else.
fn modified(entry: &ZipFileHeaderRecord<'_>) -> Option<SystemTime> {
    let (seconds, nanos) = match entry.last_modified() {
        ZipDateTimeKind::Utc(time) => (time.to_unix(), time.nanosecond()),
        ZipDateTimeKind::Local(time) => {
            let time = rawzip::time::UtcDateTime::from_components(
                time.year(),
                time.month(),
                time.day(),
                time.hour(),
                time.minute(),
                time.second(),
                time.nanosecond(),
            )?;
            (time.to_unix(), time.nanosecond())
        }
    };
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanos))
}
