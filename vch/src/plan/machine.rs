//! What the container may use of its machine, and where its output is kept.

use std::net::{IpAddr, SocketAddr};

use wire::spec::{Diagnostics, LogDevice, Machine, SHM_SIZE, Syslog, Transport};

use super::PlanError;
use super::network::HOST;
use crate::cli::run::machine::{LogDriver, MachineArgs};
use crate::cli::run::network::Network;

/// The machine has the memory and the processors that were asked for: only a part of a processor is a limit.
pub(super) fn machine(args: &MachineArgs) -> Machine {
    Machine {
        cpus: args.cpus.limit(),
        // docker takes 0 and -1 for none
        pids: u64::try_from(args.pids_limit).ok().filter(|most| *most > 0),
        shm_size: args.shm_size.unwrap_or(SHM_SIZE),
        sysctls: args.sysctl.clone(),
        ..Machine::default()
    }
}

pub(super) fn log(args: &MachineArgs, transient: bool) -> Option<LogDevice> {
    // a container that leaves no trace has no log either
    (!transient && args.log_driver != LogDriver::None).then_some(LogDevice::Virtio)
}

pub(super) fn diagnostics(args: &MachineArgs, network: Network) -> Result<Diagnostics, PlanError> {
    if args.log_driver != LogDriver::Syslog {
        return if args.log_opt.is_empty() { Ok(Diagnostics::default()) } else { Err(PlanError::LogOption) };
    }
    if network == Network::None {
        return Err(PlanError::SyslogAddress("without a network there is nobody to send to".into()));
    }
    let address = args.log_opt.iter().rev().find(|(name, _)| name == "syslog-address").map(|(_, value)| value.as_str());
    let wrong = |why: &str| PlanError::SyslogAddress(why.to_owned());
    let (transport, server) = match address.unwrap_or_default().split_once("://") {
        Some(("tcp", server)) => (Transport::Tcp, server),
        Some(("udp", server)) => (Transport::Udp, server),
        _ => return Err(wrong("it says where to send to")),
    };
    let parsed = server.parse::<SocketAddr>().or_else(|_| Ok(SocketAddr::new(server.parse::<IpAddr>()?, SYSLOG)));
    let mut server = parsed.map_err(|_: std::net::AddrParseError| wrong("the server is an IP address"))?;
    if server.ip().is_loopback() {
        // docker's own daemon sends; here it is the guest, for which this host has another address
        server.set_ip(IpAddr::V4(HOST));
    }
    Ok(Diagnostics { syslog: Some(Syslog { transport, server }), ..Diagnostics::default() })
}

/// RFC 5426; docker's for TCP, too.
const SYSLOG: u16 = 514;

#[cfg(test)]
mod tests {
    use super::super::tests::{image, plan};
    use super::*;

    #[test]
    fn a_part_of_a_processor_is_a_limit() {
        let of = |line: &str| plan(line, &image()).unwrap().spec.machine;
        assert_eq!(of("vch run img"), Machine::default());
        let machine = of("vch run --cpus 1.5 --pids-limit 100 --shm-size 1g --sysctl kernel.msgmax=1 img");
        assert_eq!((machine.cpus, machine.pids, machine.shm_size), (Some(1500), Some(100), 1 << 30));
        assert_eq!(machine.sysctls, [("kernel.msgmax".to_owned(), "1".to_owned())]);
        assert_eq!(of("vch run --pids-limit 0 img").pids, None);
    }

    #[test]
    fn output_goes_where_it_should() {
        let of = |options: &str| plan(&format!("vch run {options}img"), &image()).map(|plan| plan.spec);
        assert_eq!(of("").unwrap().log, Some(LogDevice::Virtio));
        assert_eq!(of("--rm ").unwrap().log, None);
        assert_eq!(of("--log-driver none ").unwrap().log, None);
        let syslog = |address: &str| {
            let spec = of(&format!("--log-driver syslog --log-opt syslog-address={address} ")).unwrap();
            let Syslog { transport, server } = spec.diagnostics.syslog.unwrap();
            (transport, server.to_string())
        };
        assert_eq!(syslog("tcp://192.0.2.1:5514"), (Transport::Tcp, "192.0.2.1:5514".into()));
        assert_eq!(syslog("udp://192.0.2.1"), (Transport::Udp, "192.0.2.1:514".into()));
        assert_eq!(syslog("udp://127.0.0.1:5"), (Transport::Udp, "10.0.2.2:5".into()));
        for options in [
            "--log-driver syslog ",
            "--log-driver syslog --log-opt syslog-address=log.example.org ",
            "--log-driver syslog --log-opt syslog-address=tcp://log.example.org ",
            "--network none --log-driver syslog --log-opt syslog-address=tcp://192.0.2.1 ",
            "--log-opt syslog-address=tcp://192.0.2.1 ",
        ] {
            assert!(of(options).is_err(), "{options}");
        }
    }
}
