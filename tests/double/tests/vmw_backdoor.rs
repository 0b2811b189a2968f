//! A guest's side that others wrote, the crate `vmw_backdoor`, finds a host in our double: where real hosts serve it, and where they do not.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{env, thread};

use double::{Faults, Vmx, plug};
use vmw_backdoor::{BackdoorGuard, VmwError};

fn host(faults: Faults) -> Arc<Mutex<Vmx>> {
    let mut vmx = Vmx::with(&[("guestinfo.foo", "hello"), ("guestinfo.empty", "")]);
    vmx.guestinfo.insert("guestinfo.binary".to_owned(), (0..=255).collect());
    vmx.guestinfo.insert("guestinfo.large".to_owned(), vec![b'x'; 3_000_000]);
    vmx.faults = faults;
    Arc::new(Mutex::new(vmx))
}

/// Without iopl(2), which not every kernel has.
fn backdoor() -> BackdoorGuard {
    vmw_backdoor::probe_backdoor().expect("there is a backdoor")
}

#[test]
fn its_values_are_had_on_one_channel() {
    let vmx = host(Faults::default());
    let _plugged = plug(vmx.clone());
    let mut backdoor = backdoor();
    let mut channel = backdoor.open_enhanced_chan().unwrap();
    let mut get = |key: &str| channel.get_guestinfo(key.as_bytes()).unwrap();
    assert_eq!(get("guestinfo.foo").as_deref(), Some(&b"hello"[..]));
    assert_eq!(get("guestinfo.bar"), None);
    assert_eq!(get("guestinfo.empty").as_deref(), Some(&b""[..]));
    assert_eq!(get("guestinfo.binary"), Some((0..=255).collect()));
    assert_eq!(get("guestinfo.large").map(|value| value.len()), Some(3_000_000));
    assert_eq!(get("GuestInfo.Foo").as_deref(), Some(&b"hello"[..]));
    channel.log("hello, host").unwrap();
    channel.report_agent().unwrap();
    channel.close().unwrap();
    let vmx = vmx.lock().unwrap();
    assert_eq!(vmx.told.log, ["hello, host"]);
    assert_eq!(vmx.told.version.as_deref(), Some("2147483647"));
    assert_eq!(vmx.requests.len(), 8);
    assert_eq!(vmx.open_channels(), 0);
}

fn get(faults: Faults) -> Result<Option<Vec<u8>>, VmwError> {
    let _plugged = plug(host(faults));
    backdoor().open_enhanced_chan()?.get_guestinfo(b"guestinfo.foo")
}

#[track_caller]
fn check(faults: Faults, error: &str) {
    assert_eq!(get(faults).unwrap_err().to_string(), format!("vmware backdoor error: {error}"));
}

#[test]
fn it_fails_where_it_fails_on_hosts_too() {
    // it always takes high bandwidth, always wants cookies, and begins nothing again
    check(Faults { no_high_bandwidth: true, ..Faults::default() }, "erpc send_command_len failed");
    check(Faults { no_cookies: true, ..Faults::default() }, "erpc open failed");
    check(Faults { checkpoint_at: Some(1), ..Faults::default() }, "erpc recv_reply_data failed");
    check(Faults { deaf: true, ..Faults::default() }, "erpc open failed");
    // and takes every refusal for a key that is not there
    assert_eq!(get(Faults { authenticate: true, ..Faults::default() }).unwrap(), None);
}

#[test]
fn each_thread_has_the_host_that_it_plugged_in() {
    let threads = (0..8).map(|number| {
        thread::spawn(move || {
            let name = format!("host {number}");
            let _plugged = plug(Arc::new(Mutex::new(Vmx::with(&[("guestinfo.name", &name)]))));
            for _ in 0..200 {
                let mut backdoor = backdoor();
                let value = backdoor.open_enhanced_chan().unwrap().get_guestinfo(b"guestinfo.name").unwrap();
                assert_eq!(value.as_deref(), Some(name.as_bytes()));
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn hosts_are_plugged_in_like_plugs() {
    let name = || backdoor().open_enhanced_chan().unwrap().get_guestinfo(b"guestinfo.name").unwrap();
    let vmx = |name: &str| Arc::new(Mutex::new(Vmx::with(&[("guestinfo.name", name)])));
    let _outer = plug(vmx("outer"));
    {
        let _inner = plug(vmx("inner"));
        assert_eq!(name().as_deref(), Some(&b"inner"[..]));
    }
    assert_eq!(name().as_deref(), Some(&b"outer"[..]));
}

#[test]
fn without_a_host_an_access_ends_the_process() {
    const CHILD: &str = "DOUBLE_KNOCKS_IN_VAIN";
    if env::var_os(CHILD).is_some() {
        drop(plug(host(Faults::default())));
        drop(vmw_backdoor::probe_backdoor());
        return;
    }
    let name = "without_a_host_an_access_ends_the_process";
    let output = Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(11), "{output:?}");
}
