//! Bodies grow into files, and wait for room, but never for themselves.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::exchange::Body;
use crate::failure::ErrorKind;

const KIB: u64 = 1 << 10;

/// A spool with a threshold of 1 KiB and room for 4 MiB in three files.
fn spool() -> (TempDir, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(SpoolSettings {
        threshold: KIB,
        directory: directory.path().join("spool"),
        max_bytes: 4096 * KIB,
        max_files: 3,
        max_wait: Duration::from_secs(60),
        memory_limit: 2048 * KIB,
        ..SpoolSettings::default()
    });
    (directory, spool)
}

/// Bytes in which no two places look alike.
fn content(kibibytes: u64) -> Vec<u8> {
    (0..kibibytes * KIB / 8).flat_map(|number| (number * 0x9e37_79b9).to_le_bytes()).collect()
}

async fn write(spool: &Spool, kibibytes: u64) -> Result<Written, Failure> {
    let mut writer = spool.writer(None);
    for part in content(kibibytes).chunks(10_000) {
        writer.write(part).await?;
    }
    writer.finish().await
}

async fn region(spool: &Spool, kibibytes: u64) -> Region {
    match write(spool, kibibytes).await.unwrap() {
        Written::File(region) => region,
        Written::Memory(bytes) => panic!("{} bytes in memory", bytes.len()),
    }
}

/// Polls once, in the hope that it waits.
async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    // Longer than creating a file takes; and not as long as waiting for room.
    tokio::time::timeout(Duration::from_secs(1), future).await.is_err()
}

#[tokio::test]
async fn a_small_body_stays_in_memory_and_a_large_one_is_in_a_file_without_a_name() {
    let (_directory, spool) = spool();
    let Written::Memory(bytes) = write(&spool, 1).await.unwrap() else { panic!("it is small") };
    assert!(bytes == content(1) && !spool.settings().directory.exists());
    for kibibytes in [2, 3000] {
        let region = region(&spool, kibibytes).await;
        assert_eq!(fs::read_dir(&spool.settings().directory).unwrap().count(), 0);
        assert_eq!((region.length(), spool.used()), (kibibytes * KIB, (kibibytes * KIB, 1)));
        assert!(region.read(0, usize::MAX).unwrap() == content(kibibytes));
        let body = Body::file(region);
        let clone = body.clone();
        drop(body);
        assert_eq!(spool.used(), (kibibytes * KIB, 1), "a clone has it still");
        drop(clone);
        assert_eq!(spool.used(), (0, 0));
    }
}

#[tokio::test]
async fn what_a_step_needs_as_a_whole_is_limited_by_the_setting_that_the_error_names() {
    let (_directory, spool) = spool();
    let mut body = Body::file(region(&spool, 2048).await);
    body.load().await.unwrap();
    assert!(body.as_bytes().unwrap() == content(2048));
    assert_eq!(spool.used(), (2048 * KIB, 1), "its forks have the file");
    drop(body);
    assert_eq!(spool.used(), (0, 0));
    let mut body = Body::file(region(&spool, 2049).await);
    let error = body.load().await.unwrap_err();
    assert_eq!(ErrorKind::of(&error), ErrorKind::Data);
    assert!(error.to_string().ends_with("takes at most 2097152 (`body.memory_limit`)"), "{error}");
}

#[tokio::test]
async fn what_can_never_fit_is_an_error_at_once() {
    let (_directory, spool) = spool();
    let announced = spool.writer(None).expect(4096 * KIB + 1).await.unwrap_err();
    let grown = write(&spool, 4097).await.map(drop).unwrap_err();
    for failure in [announced, grown] {
        assert_eq!(failure.kind, ErrorKind::Data);
        assert!(failure.to_string().contains("`body.max_spooled_bytes`"), "{failure}");
    }
    // With the body that the exchange has already.
    let held = region(&spool, 3000).await;
    let failure = spool.writer(Some(&held)).expect(2000 * KIB).await.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Data);
    assert!(failure.to_string().contains("has a spooled one already"), "{failure}");
    drop(held);
    assert_eq!(spool.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_until_there_is_room() {
    let (_directory, spool) = spool();
    let large = region(&spool, 3000).await;
    let mut next = Box::pin(write(&spool, 2000));
    assert!(waits(&mut next).await);
    drop(large);
    next.await.unwrap();
    // For a file as well.
    let files = [region(&spool, 2).await, region(&spool, 2).await, region(&spool, 2).await];
    let mut next = Box::pin(write(&spool, 2));
    assert!(waits(&mut next).await);
    drop(files);
    next.await.unwrap();
    assert_eq!(spool.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_only_so_long() {
    let (_directory, spool) = spool();
    let _large = region(&spool, 3000).await;
    let begun = tokio::time::Instant::now();
    let failure = write(&spool, 2000).await.map(drop).unwrap_err();
    assert_eq!((failure.kind, begun.elapsed().as_secs()), (ErrorKind::Unavailable, 60));
    let text = failure.to_string();
    assert!(text.contains("none came free in 60s (`body.max_spool_wait`)"), "{text}");
    assert_eq!(spool.used(), (3000 * KIB, 1));
}

#[tokio::test(start_paused = true)]
async fn of_half_written_bodies_that_wait_for_each_other_one_fails_at_once() {
    let (_directory, spool) = spool();
    let half = async || {
        let mut writer = spool.writer(None);
        writer.write(&content(2000)).await.unwrap();
        writer
    };
    let (first, second) = (half().await, half().await);
    let begun = tokio::time::Instant::now();
    let rest = async |mut writer: SpoolWriter| {
        writer.write(&content(2000)).await?;
        writer.finish().await.map(drop)
    };
    let (first, second) = tokio::join!(rest(first), rest(second));
    let failed = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!((failed[0].kind, begun.elapsed().as_secs()), (ErrorKind::Unavailable, 0));
    assert!(failed[0].to_string().contains("all bodies there wait for it too"), "{}", failed[0]);
    assert_eq!(spool.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn of_exchanges_that_wait_for_the_room_of_each_others_bodies_one_fails_at_once() {
    let (_directory, spool) = spool();
    let bodies = [region(&spool, 2000).await, region(&spool, 2000).await];
    let begun = tokio::time::Instant::now();
    let exchange = async |body: Region| {
        let mut writer = spool.writer(Some(&body));
        writer.expect(2000 * KIB).await?;
        writer.finish().await.map(drop)
    };
    let [first, second] = bodies;
    let (first, second) = tokio::join!(exchange(first), exchange(second));
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(spool.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_half_written_goes_before_one_that_is_begun() {
    let (_directory, spool) = spool();
    let large = region(&spool, 1000).await;
    let mut half = Box::pin(write(&spool, 3500));
    assert!(waits(&mut half).await);
    // There would be room for it.
    let mut begun = Box::pin(write(&spool, 2));
    assert!(waits(&mut begun).await);
    drop(large);
    let (half, begun) = tokio::join!(half, begun);
    assert!(half.is_ok() && begun.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_given_up_leaves_nothing() {
    let (_directory, spool) = spool();
    let mut writer = spool.writer(None);
    for part in content(1500).chunks(10_000) {
        writer.write(part).await.unwrap();
    }
    drop(writer);
    // What is being written is part of the room as long as it is.
    while spool.used() != (0, 0) {
        tokio::task::yield_now().await;
    }
    let large = region(&spool, 3000).await;
    let mut next = Box::pin(write(&spool, 2000));
    assert!(waits(&mut next).await);
    drop(next);
    while spool.used() != (3000 * KIB, 1) {
        tokio::task::yield_now().await;
    }
    drop(large);
    region(&spool, 4096).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_fails_the_body_alone() {
    let (directory, spool) = spool();
    fs::write(directory.path().join("spool"), "a file").unwrap();
    let failure = write(&spool, 2).await.map(drop).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Unavailable);
    assert!(failure.to_string().starts_with("`body.spool_dir` is `"), "{failure}");
    assert_eq!(spool.used(), (0, 0));
    let at_start = spool.cannot_be_used().unwrap();
    assert!(at_start.ends_with("bodies of more than 1024 bytes will fail"), "{at_start}");
    fs::remove_file(directory.path().join("spool")).unwrap();
    region(&spool, 2).await;
    assert_eq!(spool.cannot_be_used(), None);
}

#[tokio::test]
async fn a_spooled_file_gets_a_name_once_and_is_no_part_of_the_spool_then() {
    let (directory, spool) = spool();
    let region = region(&spool, 2000).await;
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    fs::write(&first, "there").unwrap();
    assert!(region.link_to(&first).is_err());
    fs::remove_file(&first).unwrap();
    assert!(region.link_to(&first).unwrap());
    assert_eq!(spool.used(), (0, 0));
    assert!(!region.link_to(&second).unwrap(), "two names of one file would change together");
    // Others move and delete what is theirs.
    fs::rename(&first, &second).unwrap();
    assert!(region.read(0, usize::MAX).unwrap() == content(2000));
    assert!(fs::read(&second).unwrap() == content(2000));
    // What is written to it is noticed, also when the time of modification was set back.
    std::thread::park_timeout(Duration::from_millis(20));
    let modified = fs::metadata(&second).unwrap().modified().unwrap();
    let mut changed = content(2000);
    changed[7] ^= 1;
    fs::write(&second, changed).unwrap();
    File::options().append(true).open(&second).unwrap().set_modified(modified).unwrap();
    assert!(region.read(0, 1).unwrap_err().to_string().contains("was changed"));
}
