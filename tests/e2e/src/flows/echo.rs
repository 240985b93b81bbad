//! A server that sends back what it receives, over UDP and TCP, IPv4 and IPv6.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};

use super::TICK;
use crate::namespace::Namespace;

/// Runs until dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Starts it in `namespace` on `port` of every address.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let (udp, tcp) = namespace
            .enter(move || {
                // One socket of version 6 serves both (RFC 3493, 3.7).
                let any = (Ipv6Addr::UNSPECIFIED, port);
                Ok::<_, std::io::Error>((UdpSocket::bind(any)?, TcpListener::bind(any)?))
            })?
            .with_context(|| format!("cannot listen on port {port}"))?;
        udp.set_read_timeout(Some(TICK))?;
        tcp.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![
            thread::spawn({
                let stop = Arc::clone(&stop);
                move || datagrams(&udp, &stop)
            }),
            thread::spawn({
                let stop = Arc::clone(&stop);
                move || connections(&tcp, &stop)
            }),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    }
}

fn connections(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let stop = Arc::clone(stop);
                open.push(thread::spawn(move || connection(stream, &stop)));
            }
            Err(_) => thread::sleep(TICK / 4),
        }
    }
    for thread in open {
        thread.join().ok();
    }
}

fn connection(mut stream: TcpStream, stop: &AtomicBool) {
    let prepared = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(TICK)))
        .and_then(|()| stream.set_write_timeout(Some(TICK)))
        .and_then(|()| stream.set_nodelay(true));
    let mut buffer = [0; 4096];
    while prepared.is_ok() && !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                stream.write_all(&buffer[..length]).ok();
            }
            Err(error) if super::is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}
