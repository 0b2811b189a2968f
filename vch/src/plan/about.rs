//! What a VCH is told of a container beside its spec, as far as image and options say it.

use wire::spec::About;

use super::{ImageConfig, process};
use crate::cli::ContainerArgs;
use crate::cli::run::network::PublishArg;
use crate::vm::ports;

/// Name, image and what docker shows of an image's configuration. Digest, time, labels and the host's ports are added by who knows them.
pub fn about(args: &ContainerArgs, image: &ImageConfig) -> About {
    let (entrypoint, cmd) = process::parts(args.entrypoint.as_deref(), args.command(), image);
    let mut exposed = image.exposed_ports.clone();
    for PublishArg { protocol, container: (first, last), .. } in &args.network.publish {
        exposed.extend((*first..=*last).map(|port| format!("{port}/{}", ports::name(*protocol))));
    }
    exposed.sort();
    exposed.dedup();
    About {
        name: args.name.clone(),
        image: Some(args.image().to_owned()),
        entrypoint,
        cmd,
        exposed,
        volumes: image.volumes.clone(),
        ..About::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::tests::image;
    use super::*;
    use crate::cli::{Cli, Command};

    fn told(line: &str) -> About {
        let Command::Run(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("{line}")
        };
        let image = ImageConfig { exposed_ports: vec!["443/tcp".into()], volumes: vec!["/data".into()], ..image() };
        about(&args.container, &image)
    }

    #[test]
    fn what_the_image_says_and_what_was_asked_for() {
        let plain = told("vch run --name web -p 8080:80 -p 53:53/udp img");
        assert_eq!((plain.name.as_deref(), plain.image.as_deref()), (Some("web"), Some("img")));
        assert_eq!((plain.entrypoint, plain.cmd), (vec!["/init".into(), "-v".into()], vec!["serve".to_owned()]));
        assert_eq!((plain.exposed.join(" "), plain.volumes), ("443/tcp 53/udp 80/tcp".into(), vec!["/data".into()]));
        let other = told("vch run --entrypoint /bin/sh img -c true");
        assert_eq!((other.entrypoint.join(" "), other.cmd.join(" ")), ("/bin/sh".into(), "-c true".into()));
        let bare = told("vch run --entrypoint= img true");
        assert_eq!((bare.name, bare.entrypoint.len(), bare.cmd), (None, 0, vec!["true".to_owned()]));
    }
}
