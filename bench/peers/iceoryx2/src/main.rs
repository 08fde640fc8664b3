//! bench/peers/iceoryx2: iceoryx2 publish-subscribe between two processes, busy polling. A sample holds BATCH records, loaned and
//! filled in shared memory. No overflow; the publisher retries until delivered. Nothing is stored. See ../peer.h: the same contract.
use iceoryx2::prelude::*;
use std::time::Instant;

struct Peer {
    role: String,
    batch: usize,
    bytes: usize,
    records: u64,
    warm: u64,
    done: u64,
    sum: u64,
    start: Instant,
    end: Instant,
}

impl Peer {
    fn take(&mut self, message: &[u8]) {
        for value in message.chunks_exact(self.bytes) {
            self.sum += value[0] as u64 + value[value.len() - 1] as u64;
            self.done += 1;
            if self.done == self.warm {
                self.start = Instant::now();
            }
            if self.done == self.warm + self.records {
                self.end = Instant::now();
            }
        }
    }
    fn wants(&self) -> bool {
        self.done < self.warm + self.records
    }
}

type Error = Box<dyn std::error::Error>;
type Service = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Publisher = iceoryx2::port::publisher::Publisher<ipc::Service, [u8], ()>;
type Subscriber = iceoryx2::port::subscriber::Subscriber<ipc::Service, [u8], ()>;

fn service(node: &Node<ipc::Service>, name: &str) -> Result<Service, Error> {
    Ok(node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(64)
        .open_or_create()?)
}

fn publisher(s: &Service, len: usize) -> Result<Publisher, Error> {
    Ok(s.publisher_builder()
        .initial_max_slice_len(len)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?)
}

/// Every receiver must be there: a sample that nobody takes is lost.
fn send(p: &Publisher, records: &[u8]) -> Result<(), Error> {
    loop {
        let sample = p.loan_slice_uninit(records.len())?.write_from_slice(records);
        if sample.send()? > 0 {
            return Ok(());
        }
        std::hint::spin_loop();
    }
}

fn receive(s: &Subscriber, peer: &mut Peer) -> Result<(), Error> {
    loop {
        if let Some(sample) = s.receive()? {
            peer.take(&sample);
            return Ok(());
        }
        std::hint::spin_loop();
    }
}

fn main() -> Result<(), Error> {
    let a: Vec<String> = std::env::args().collect();
    let number = |i: usize| a[i].parse::<u64>();
    let now = Instant::now();
    let mut p = Peer { role: a[1].clone(), batch: number(3)? as usize, bytes: number(4)? as usize, records: number(5)?, warm: number(6)?,
        done: 0, sum: 0, start: now, end: now };
    let mut x = 1u32;
    let records: Vec<u8> = (0..p.batch * p.bytes).map(|_| { x = x.wrapping_mul(1664525).wrapping_add(1013904223); (x >> 24) as u8 }).collect();
    let mut config = Config::default();
    config.global.prefix = "bwbench_".try_into()?;
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
    let (there, back) = (service(&node, "there")?, service(&node, "back")?);
    match p.role.as_str() {
        "read" => {
            let s = there.subscriber_builder().create()?;
            println!("ready");
            while p.wants() {
                receive(&s, &mut p)?;
            }
            println!("{{\"rate\":{:.1},\"sum\":{},\"points\":[]}}", p.records as f64 / (p.end - p.start).as_secs_f64(), p.sum);
        }
        "write" => {
            let out = publisher(&there, records.len())?;
            let mut sent = 0;
            while sent < p.warm + p.records {
                send(&out, &records)?;
                sent += p.batch as u64;
            }
            std::thread::sleep(std::time::Duration::from_secs(2)); // the samples are this process's memory
        }
        "pong" => {
            let (s, out) = (there.subscriber_builder().create()?, publisher(&back, records.len())?);
            println!("ready");
            while p.wants() {
                receive(&s, &mut p)?;
                send(&out, &records)?;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        _ => {
            let (s, out) = (back.subscriber_builder().create()?, publisher(&there, records.len())?);
            let mut times = Vec::with_capacity(p.records as usize);
            for i in 0..p.warm + p.records {
                let before = Instant::now();
                send(&out, &records)?;
                receive(&s, &mut p)?;
                if i >= p.warm {
                    times.push(before.elapsed().as_nanos());
                }
            }
            times.sort_unstable();
            let at = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99];
            let lines: Vec<String> = at.iter().map(|q| format!("[{},{}]", q, times[(times.len() as f64 * q / 100.0) as usize])).collect();
            println!("{{\"percentiles\":[{}]}}", lines.join(","));
        }
    }
    Ok(())
}
