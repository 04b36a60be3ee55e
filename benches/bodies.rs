//! What large bodies cost: a file goes through `file:` -> `http:` -> `file:` in the program `bactrian`, and through `curl`,
//! against one server on loopback that reads what it is sent and answers with as many bytes. Prints the time of each, and
//! the most memory that the program had beyond what it has without work.
//!
//! `link`: the response is spooled on the file system of the target, and gets its name there. `copy`: the target directory
//! has a group of its own, so the file is made there, and the kernel copies it.
//!
//! ```text
//! cargo bench --bench bodies                     # 256 MiB, one round
//! cargo bench --bench bodies -- 4096 3 /var/tmp  # mebibytes, rounds, where the files are
//! ```
//!
//! `PROGRAM=target/release/bactrian cargo test --bench bodies -- 4096 3 /var/tmp --bench` measures another build of it.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // As a test it only shows that it works.
        [] | ["--test"] => measure(4, 1, None),
        ["--bench"] => measure(256, 1, None),
        [size, "--bench"] => measure(size.parse()?, 1, None),
        [size, rounds, "--bench"] => measure(size.parse()?, rounds.parse()?, None),
        [size, rounds, folder, "--bench"] => measure(size.parse()?, rounds.parse()?, Some(folder)),
        _ => Err("usage: bodies [MEBIBYTES [ROUNDS [FOLDER]]] --bench".into()),
    }
}

fn measure(mebibytes: u64, rounds: usize, folder: Option<&str>) -> Outcome<()> {
    let folder = match folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
    };
    let folder = folder.path();
    let length = mebibytes << 20;
    let server = serve(length)?;
    for name in ["in", "link", "copy", "spool"] {
        fs::create_dir(folder.join(name))?;
    }
    fs::set_permissions(folder.join("copy"), Permissions::from_mode(0o2755))?;
    let source = folder.join("source");
    write_source(&source, length)?;
    println!("{mebibytes} MiB: file -> http -> file, {rounds} rounds");
    let mut best: Option<[f64; 3]> = None;
    for _ in 0..rounds {
        let curl = curl(&source, &folder.join("curl"), server, length)?;
        let link = bactrian(folder, &source, "link", server, length)?;
        let copy = bactrian(folder, &source, "copy", server, length)?;
        let seconds = [curl, link.0, copy.0].map(|time| time.as_secs_f64());
        println!(
            "curl {:.2} s; link {:.2} s, {:.1} MiB more than idle; copy {:.2} s, {:.1} MiB more than idle",
            seconds[0], seconds[1], link.1, seconds[2], copy.1
        );
        let before = best.unwrap_or([f64::MAX; 3]);
        best = Some([0, 1, 2].map(|index| before[index].min(seconds[index])));
    }
    if let Some([curl, link, copy]) = best {
        println!("best of each: link {:.2}x of curl, copy {:.2}x", link / curl, copy / curl);
    }
    Ok(())
}

/// Bytes of which no two blocks follow each other in the same way.
fn block() -> Vec<u8> {
    (0..1_000_003_u64 / 8)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

fn write_source(path: &Path, length: u64) -> Outcome<()> {
    let (mut file, block) = (File::create(path)?, block());
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(file.sync_all()?)
}

/// A server that reads the body of each request, and compares it with what it shall be; then it answers with the same.
fn serve(length: u64) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                if let Err(error) = stream.map_err(Into::into).and_then(|stream| answer(stream, length)) {
                    eprintln!("the server: {error}");
                }
            });
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, length: u64) -> Outcome<()> {
    let block = block();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    let (mut left, mut at, mut part) = (length, 0, vec![0; 256 << 10]);
    while left > 0 {
        let most = part.len().min(block.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = reader.read(&mut part[..most])?;
        if read == 0 || part[..read] != block[at..at + read] {
            return Err(format!("what was sent is something else, {left} bytes before the end").into());
        }
        (left, at) = (left - read as u64, (at + read) % block.len());
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        stream.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(())
}

fn curl(source: &Path, target: &Path, server: SocketAddr, length: u64) -> Outcome<Duration> {
    let begun = Instant::now();
    let status = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--header", "expect:", "--upload-file"])
        .arg(source)
        .arg("--output")
        .arg(target)
        .arg(format!("http://{server}/"))
        .status()?;
    let time = begun.elapsed();
    if !status.success() || fs::metadata(target)?.len() != length {
        return Err("curl has failed".into());
    }
    fs::remove_file(target)?;
    Ok(time)
}

/// Kills it at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time from when a file is there until the response is in its place, and the most memory in mebibytes.
fn bactrian(
    folder: &Path,
    source: &Path,
    to: &str,
    server: SocketAddr,
    length: u64,
) -> Outcome<(Duration, f64)> {
    let (inbox, outbox) = (folder.join("in"), folder.join(to));
    let routes = folder.join("routes.toml");
    let shown = |path: &Path| path.display().to_string();
    fs::write(
        &routes,
        format!(
            "[admin]\nlisten = 'off'\n[body]\nspool_dir = '{}'\nmax_spooled_bytes = {}\n[[route]]\nid = 'a'\n\
             from = 'file:{}?initial_delay=0&delay=5ms&move=.read'\nsteps = [{{ to = \
             'http:{server}/?http_method=PUT&response_timeout=1h' }}, {{ to = 'file:{}?force_writes=false' }}]\n",
            shown(&folder.join("spool")),
            length.max(1),
            shown(&inbox),
            shown(&outbox),
        ),
    )?;
    let program = std::env::var_os("PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_bactrian").into());
    let program = Command::new(std::path::absolute(program)?)
        .arg("run")
        .arg(&routes)
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()?;
    let program = Running(program);
    // Time to start, and to become idle.
    std::thread::park_timeout(Duration::from_millis(500));
    let idle = memory(&program.0, "VmRSS")?;
    let link = inbox.join("body");
    let target: PathBuf = outbox.join("body");
    let begun = Instant::now();
    fs::hard_link(source, &link)?;
    while !target.exists() {
        if begun.elapsed() > Duration::from_secs(1200) {
            return Err("no response came".into());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let time = begun.elapsed();
    let most = memory(&program.0, "VmHWM")?;
    if fs::metadata(&target)?.len() != length {
        return Err("the response is not whole".into());
    }
    drop(program);
    fs::remove_file(&target)?;
    fs::remove_dir_all(&inbox)?;
    fs::create_dir(&inbox)?;
    Ok((time, (most - idle) / 1024.0))
}

/// A line of `/proc/PID/status`, in kibibytes.
fn memory(program: &Child, name: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("/proc tells no memory")?.parse()?)
}
