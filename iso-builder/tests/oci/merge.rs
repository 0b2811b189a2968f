//! Layers over layers: whiteouts, opaque directories, changes of type, links, symlinked parents.

use crate::build::{flatten_layers, layer, lines};
use crate::layers::{overlaid, told};

#[track_caller]
fn check(layers: &[&[&str]], expected: &[&str]) {
    let layers: Vec<_> = layers.iter().map(|lines| layer(lines)).collect();
    let merged = flatten_layers(&layers).unwrap();
    assert_eq!(lines(&merged), expected);
    assert_eq!(told(&overlaid(&layers)), told(&merged), "as disks of their own, under overlayfs");
}

#[track_caller]
fn check_error(layers: &[&[&str]], expected: &str) {
    let layers: Vec<_> = layers.iter().map(|lines| layer(lines)).collect();
    assert_eq!(flatten_layers(&layers).unwrap_err(), format!("image.tar: {expected}"));
}

#[test]
fn later_layers_win() {
    check(&[&["a=1", "b=1"], &["a=2"]], &["a=2", "b=1"]);
    check(&[&["./a=1", "/b=1", "c//d/../e=1"]], &["a=1", "b=1", "c/?", "c/e=1"]);
}

#[test]
fn whiteouts_hide_lower_layers() {
    check(&[&["d/", "d/a=1", "d/b=1"], &["d/.wh.a="]], &["d/", "d/b=1"]);
    check(&[&["d/", "d/a=1"], &[".wh.d="]], &[]);
    check(&[&["a=1"], &[".wh.a=", ".wh.none=", "no/.wh.such="]], &[]);
}

#[test]
fn whiteouts_spare_their_own_layer() {
    check(&[&["a=1"], &["a=2", ".wh.a="]], &["a=2"]);
    check(&[&["a=1"], &[".wh.a=", "a=2"]], &["a=2"]);
    check(&[&["d/", "d/a=1"], &["d/b=2", ".wh.d="]], &["d/?", "d/b=2"]);
    check(&[&["d/", "d/a=1"], &[".wh.d=", "d/b=2"]], &["d/?", "d/b=2"]);
    // what an entry said of a directory holds, whatever comes below it before the whiteout
    check(&[&["d/", "d/a=1"], &["d/", "d/b=2", ".wh.d="]], &["d/", "d/b=2"]);
}

#[test]
fn opaque_directories_hide_lower_layers_wherever_the_marker_stands() {
    let lower: &[&str] = &["d/", "d/a=1", "d/s/", "d/s/x=1"];
    let expected = &["d/", "d/b=2", "d/s/?", "d/s/y=2"];
    check(&[lower, &["d/", "d/.wh..wh..opq=", "d/b=2", "d/s/y=2"]], expected);
    check(&[lower, &["d/", "d/b=2", "d/s/y=2", "d/.wh..wh..opq="]], expected);
    check(&[lower, &["d/b=2", "d/.wh..wh..opq=", "d/", "d/s/y=2"]], expected);
    check(&[lower, &[".wh..wh..opq="]], &[]);
    check(&[lower, &["none/.wh..wh..opq="]], &["d/", "d/a=1", "d/s/", "d/s/x=1"]);
}

#[test]
fn names_of_aufs_are_no_files() {
    check(&[&[".wh..wh.aufs=", ".wh..wh.plnk/", ".wh..wh.plnk/1=x", "a=1"]], &["a=1"]);
}

#[test]
fn types_change() {
    check(&[&["a/", "a/b=1"], &["a=2"]], &["a=2"]);
    check(&[&["a=1"], &["a/", "a/b=2"]], &["a/", "a/b=2"]);
    check(&[&["a/", "a/b=1"], &["a -> c"]], &["a -> c"]);
    check(&[&["a -> c", "c/", "c/x=1"], &["a/", "a/b=2"]], &["a/", "a/b=2", "c/", "c/x=1"]);
    check(&[&["a/", "a/b=1"], &["a/", "a/c=2"]], &["a/", "a/b=1", "a/c=2"]);
    check(&[&["a=1"], &["a |"]], &["a |"]);
    check(&[&["a/b=1"], &["a/"]], &["a/", "a/b=1"]);
    // A file whose name ends in a slash is a directory; its data is passed over.
    check(&[&["a/=1", "b=2"]], &["a/", "b=2"]);
}

#[test]
fn hard_links_share_an_inode() {
    check(&[&["a=1", "b => a"], &["d/c => ./a"]], &["a=1", "b => a", "d/?", "d/c => a"]);
    check(&[&["a=1", "b => a"], &["a=2"]], &["a=2", "b=1"]);
    check(&[&["a=1", "a => a"]], &["a=1"]);
    check(&[&["s -> x", "t => s"]], &["s -> x", "t => s"]);
    check(
        &[&["lib -> usr/lib", "usr/lib/a=1", "b => lib/a"]],
        &["b=1", "lib -> usr/lib", "usr/?", "usr/lib/?", "usr/lib/a => b"],
    );
}

#[test]
fn hard_links_need_a_target_inside() {
    check_error(&[&["b => a"]], r#"layer 1 of 1: "b" is a hard link to "a", which does not exist"#);
    check_error(&[&["a=1"], &[".wh.a=", "b => a"]], r#"layer 2 of 2: "b" is a hard link to "a", which does not exist"#);
    check_error(&[&["a/", "b => a"]], r#"layer 1 of 1: "b" is a hard link to "a", which is a directory"#);
    check_error(&[&["b => /"]], r#"layer 1 of 1: "b" is a hard link to "/", which does not exist"#);
    let climbs = r#"layer 1 of 1: "b" is a hard link to "../../etc/passwd", which climbs out of the image"#;
    check_error(&[&["b => ../../etc/passwd"]], climbs);
}

#[test]
fn symlinked_parents_are_followed_inside_the_image() {
    let merged = &["lib -> usr/lib", "usr/?", "usr/lib/?", "usr/lib/a=1"];
    check(&[&["usr/lib/a=0", "lib -> usr/lib"], &["lib/a=1"]], merged);
    check(&[&["lib -> usr/lib"], &["lib/a=1"]], merged);
    check(&[&["s -> /x", "s/a=1"]], &["s -> /x", "x/?", "x/a=1"]);
    check(&[&["d/s -> ../../../x", "d/s/a=1"]], &["d/?", "d/s -> ../../../x", "x/?", "x/a=1"]);
    // from the root, wherever the link lies
    check(&[&["d/s -> /x", "d/s/a=1"]], &["d/?", "d/s -> /x", "x/?", "x/a=1"]);
    check(&[&["usr/lib/a=0", "lib -> usr/lib"], &["lib/.wh.a="]], &["lib -> usr/lib", "usr/?", "usr/lib/?"]);
    check(&[&["evil -> ../../..", "evil/etc/passwd=1"]], &["etc/?", "etc/passwd=1", "evil -> ../../.."]);
    check_error(&[&["a -> b", "b -> a", "a/x=1"]], r#"layer 1 of 1: "a/x" leads through a loop of symlinks"#);
    check_error(&[&["a=1"], &["a/x=1"]], r#"layer 2 of 2: "a/x" leads through "a", which is no directory"#);
}

#[test]
fn as_many_symlinks_on_a_path_as_linux_follows() {
    let links = |count: u32| -> Vec<String> {
        let chain =
            (0..count).map(|n| format!("l{n} -> {}", if n == 0 { "d".to_owned() } else { format!("l{}", n - 1) }));
        ["d/".to_owned()].into_iter().chain(chain).chain([format!("l{}/a=1", count - 1)]).collect()
    };
    let lay = |lines: &[String]| flatten_layers(&[layer(&lines.iter().map(String::as_str).collect::<Vec<_>>())]);
    assert!(lines(&lay(&links(40)).unwrap()).contains(&"d/a=1".to_owned()));
    let error = lay(&links(41)).unwrap_err();
    assert_eq!(error, r#"image.tar: layer 1 of 1: "l40/a" leads through a loop of symlinks"#);
}

#[test]
fn the_image_is_not_left() {
    check_error(&[&["a=1"], &["../etc/passwd=x"]], r#"layer 2 of 2: "../etc/passwd" climbs out of the image"#);
    check_error(&[&["a/../../x=1"]], r#"layer 1 of 1: "a/../../x" climbs out of the image"#);
    check_error(&[&["/../x/"]], r#"layer 1 of 1: "/../x/" climbs out of the image"#);
    check_error(&[&["../.wh.x="]], r#"layer 1 of 1: "../.wh.x" climbs out of the image"#);
    check_error(&[&["../.wh..wh..opq="]], r#"layer 1 of 1: "../.wh..wh..opq" climbs out of the image"#);
}

#[test]
fn impossible_names() {
    let cannot = |path: &str, why: &str| format!("layer 1 of 1: {path:?} cannot be in an image: {why}");
    check_error(&[&["d/.wh...="]], &cannot("d/.wh...", "a name in it is . or .."));
    check_error(&[&["d/.wh.="]], &cannot("d/.wh.", "a name in it is empty"));
    check_error(&[&[".wh.d/x="]], &cannot(".wh.d/x", "a whiteout is no directory"));
    check_error(&[&["/ |"]], &cannot("/", "the root can only be a directory"));
    check_error(&[&["=x"]], &cannot("", "its name is empty"));
    check_error(&[&["s -> "]], &cannot("s", "a symlink's target is empty, too long, or holds a NUL"));
}
