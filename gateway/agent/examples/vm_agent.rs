#[path = "../tests/support/mod.rs"]
mod support;
use std::sync::Arc; use std::time::Duration;
use portcullis_agent::identity::Enrolment; use portcullis_agent::{Agent, AgentConfig, AgentError};
use support::control::Control; use support::pki::Authority; use support::*;

fn sh(c:&str)->String{ let o=std::process::Command::new("sh").arg("-c").arg(c).output().unwrap(); let t=format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)); println!("$ {c}\n{t}"); t }
async fn until(what:&str, f: impl Fn()->bool){ for _ in 0..200 { if f(){ println!("ok: {what}"); return;} tokio::time::sleep(Duration::from_millis(100)).await;} panic!("never: {what}"); }
fn q(c:&str)->bool{ std::process::Command::new("sh").arg("-c").arg(c).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap().success() }
fn config()->AgentConfig{ AgentConfig{ state_dir:"/tmp/pc".into(), max_peers:1024, max_flows:1024, ..AgentConfig::default()} }
async fn control(a:&Arc<Authority>)->Control{ let c=Control::start(a.clone()).await; let i=a.issue("gw1"); Enrolment{control:c.url(),gateway:"gw1".into(),location:"office".into(),ca:a.pem(),certificate:i.certificate,key:i.key.into()}.store("/tmp/pc".as_ref()).unwrap(); c }
fn start()->tokio::task::JoinHandle<Result<(),AgentError>>{ tokio::spawn(async { let r=Agent::new(config()).run(std::future::pending()).await; if let Err(e)=&r { println!("AGENT ERROR {e}"); } r }) }
fn loc()->portcullis_proto::v1::LocationConfig{ let mut l=location(); l.addresses.push("fd77::1/64".into()); l.mtu=1380; l }
fn snap(r:u64,p:Vec<portcullis_proto::v1::Peer>)->portcullis_proto::v1::Snapshot{ let mut s=snapshot(r,p); s.location=Some(loc()); s }

#[tokio::main]
async fn main(){
  tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_env_filter("portcullis_agent=debug").init();
  sh("mount -t bpf bpf /sys/fs/bpf; ip link set lo up; mount -t tmpfs tmpfs /tmp; (ip monitor link | grep --line-buffered wg0 | while read l; do echo \"MON $l\"; done) >/tmp/monitor 2>&1 &");
  let a=Arc::new(Authority::new());
  let mut c=control(&a).await;
  let agent=start();
  let (mut g,_)=c.gateway().await;
  sh("ip -br link show wg0"); assert!(q("ip link show wg0 | grep -q DOWN || ! ip link show wg0 | grep -q ,UP"));
  let mut p4=peer(4,None); p4.allowed_ips.push("10.99.0.0/16".into());
  let peers=vec![peer(2,Some(session(1,3600))),peer(3,None),p4];
  let ap=g.snapshot(snap(10,peers.clone())).await; assert_eq!(ap.digest,digest(&peers));
  sh("ip addr show wg0; ip route; ip -6 route; wg show wg0; bpftool net show dev wg0; tc filter show dev wg0 ingress; ls -R /sys/fs/bpf");
  assert!(q("ip link show wg0 | grep -q ,UP")); assert!(q("ip route | grep -q 10.99.0.0/16"));
  // kill and restart without control
  agent.abort(); let _=agent.await; c.stop().await;
  sh("ip -br link show wg0; echo RESTART >>/tmp/monitor; cat /tmp/monitor");
  let agent=start(); tokio::time::sleep(Duration::from_secs(2)).await;
  sh("cat /tmp/monitor; bpftool net show dev wg0; tc filter show dev wg0 ingress");
  assert!(q("ip link show wg0 | grep -q ,UP"));
  agent.abort(); let _=agent.await;
  let mut c=control(&a).await; let agent=start();
  let (mut g,_)=c.gateway().await; let ap=g.snapshot(snap(10,peers.clone())).await; assert_eq!(ap.digest,digest(&peers));
  println!("downs since restart: {}", sh("sed -n '/RESTART/,$p' /tmp/monitor | grep -c 'state DOWN'"));
  // interface deleted
  sh("echo DELETE >>/tmp/monitor; ip link del wg0");
  let r=g.report(|r| r.events.iter().any(|e| e.contains("removed"))).await; println!("{:?}",r.events);
  until("rebuilt up", || q("ip link show wg0 | grep -q ,UP")).await;
  until("peers", || q("test $(wg show wg0 peers | wc -l) = 3")).await;
  until("route", || q("ip route | grep -q 10.99.0.0/16")).await;
  sh("cat /tmp/monitor; ip addr show wg0; bpftool net show dev wg0; tc filter show dev wg0 ingress;tc filter show dev wg0 egress");
  // set down
  sh("ip link set wg0 down"); until("up again", || q("ip link show wg0 | grep -q ,UP && ip route | grep -q 10.99.0.0/16 && ip addr show wg0 | grep -q fd77::1")).await;
  // detach
  let before=sh("bpftool net show dev wg0; tc filter show dev wg0 ingress");
  if q("tc qdisc show dev wg0 | grep -q clsact") { sh("tc qdisc del dev wg0 clsact"); } else { sh("rm /sys/fs/bpf/portcullis/v*/wg0/link_*"); }
  let r=g.report(|r| r.events.iter().any(|e| e.contains("detached"))).await; println!("{:?} before {}",r.events,before);
  sh("bpftool net show dev wg0; tc filter show dev wg0 ingress; tc filter show dev wg0 egress");
  // removal of address and peers
  let mut l=loc(); l.addresses.remove(0); l.addresses.insert(0,"10.78.0.1/24".into()); l.listen_port=51821;
  let mut d=delta(10,vec![],&[4]); d.location=Some(l); let ap=g.delta(d).await; assert_eq!(ap.digest,digest(&peers[..2]));
  sh("ip -br addr show wg0; ip route; wg show wg0 listen-port; wg show wg0 peers");
  agent.abort(); let _=agent.await;
  portcullis_agent::teardown(&config()).await.unwrap();
  portcullis_agent::teardown(&config()).await.unwrap();
  sh("ip link show wg0; ls -R /sys/fs/bpf");
  // strangers
  sh("ip tuntap add wg0 mode tun"); println!("stranger: {}", start().await.unwrap().unwrap_err()); sh("ip link del wg0; ls -R /sys/fs/bpf");
  portcullis_agent::teardown(&config()).await.unwrap();
  sh("ip link add wg0 type wireguard; ip link set wg0 up; echo FOREIGN >>/tmp/monitor"); let agent=start(); let (mut g,_)=c.gateway().await;
  assert!(!q("ip link show wg0 | grep -q ,UP"));
  g.snapshot(snap(10,peers.clone())).await; assert!(q("ip link show wg0 | grep -q ,UP")); sh("cat /tmp/monitor; wg show wg0 peers");
  agent.abort(); println!("AGENT OK");
}
