/* What guests do, good and bad: the first argument says which. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int say(int argc, char **argv) {
    for (int i = 2; i < argc; i++) printf("arg %s\n", argv[i]);
    for (char **e = environ; *e; e++) printf("env %s\n", *e);
    fprintf(stderr, "to stderr\n");
    return 42;
}

static int files(void) {
    char text[32] = {0};
    if (mkdir("/workspace/folder", 0777)) return 1;
    FILE *f = fopen("/workspace/folder/file", "w");
    if (!f) return 2;
    fputs("written by the guest", f);
    if (fclose(f)) return 3;
    f = fopen("folder/file", "r"); /* a relative name lies in the workspace, too */
    if (!f || !fgets(text, sizeof text, f)) return 4;
    fclose(f);
    puts(text);
    f = fopen("/workspace/given", "r");
    if (!f || !fgets(text, sizeof text, f)) return 5;
    puts(text);
    return 0;
}

static void try_open(const char *path) {
    int fd = open(path, O_RDONLY);
    printf("%s %s\n", path, fd >= 0 ? "OPENED" : "refused");
    if (fd >= 0) close(fd);
}

static int escape(void) {
    try_open("/etc/passwd");
    try_open("../etc/passwd");
    try_open("../../../../../../etc/passwd");
    try_open("/workspace/../../../../../etc/passwd");
    try_open("/proc/self/environ");
    printf("absolute link %s\n", symlink("/etc/passwd", "link") ? "refused" : "MADE");
    try_open("link");
    symlink("../../../../../../../../etc/passwd", "up");
    try_open("up");
    symlink("../../../../../../../..", "top");
    try_open("top/etc/passwd");
    try_open("planted");
    try_open("planted-folder/passwd");
    mkdir("a", 0777);
    symlink("a/../../..", "mixed");
    try_open("mixed/etc/passwd");
    printf("hard link %s\n", link("planted", "hard") ? "refused" : "made");
    try_open("hard");
    printf("rename %s\n", rename("a", "../a") ? "refused" : "MADE");
    printf("notices %s\n", open("/run/souk/evil", O_WRONLY | O_CREAT, 0666) < 0 ? "refused" : "MADE");
    printf("notice %s\n", unlink("/run/souk/notice.json") ? "refused" : "REMOVED");
    return 0;
}

static int memory(void) {
    size_t total = 0, piece = 1 << 20;
    char *volatile p; /* or clang leaves all of it out */
    while ((p = malloc(piece))) {
        memset(p, 1, piece);
        total += piece;
    }
    printf("%zu MiB\n", total >> 20);
    return 0;
}

static int many(void) {
    char name[64];
    for (int i = 0; i < 1000000; i++) {
        snprintf(name, sizeof name, "/workspace/%d", i);
        int fd = open(name, O_WRONLY | O_CREAT, 0666);
        if (fd < 0) {
            int code = errno;
            printf("%d files, %s\n", i, code == ENOSPC ? "ENOSPC" : strerror(code));
            printf("a folder %s, a link %s\n", mkdir("d", 0777) ? "refused" : "MADE",
                   symlink("0", "s") ? "refused" : "MADE");
            unlink("/workspace/0");
            fd = open(name, O_WRONLY | O_CREAT, 0666);
            printf("after removing one: %s\n", fd < 0 ? "refused" : "made");
            printf("one that is there: %s\n", open("1", O_WRONLY | O_CREAT, 0666) < 0 ? "REFUSED" : "opened");
            return 0;
        }
        close(fd);
    }
    return 1;
}

static int fill(void) {
    static char block[65536];
    memset(block, 7, sizeof block);
    long total = 0;
    int fd = open("/workspace/full", O_WRONLY | O_CREAT, 0666);
    ssize_t n;
    while ((n = write(fd, block, sizeof block)) > 0) total += n;
    printf("%ld KiB, %s\n", total >> 10, errno == ENOSPC ? "ENOSPC" : strerror(errno));
    printf("beyond: %s\n", pwrite(fd, block, 1, 1L << 30) == 1 ? "WRITTEN" : "refused");
    printf("longer: %s\n", ftruncate(fd, 1L << 30) ? "refused" : "DONE");
    lseek(fd, 1L << 30, SEEK_SET);
    printf("after a hole: %s\n", write(fd, block, 1) == 1 ? "WRITTEN" : "refused");
    close(fd);
    unlink("/workspace/full");
    fd = open("/workspace/again", O_WRONLY | O_CREAT, 0666);
    printf("after removing it: %s\n", write(fd, block, sizeof block) > 0 ? "written" : "refused");
    return 0;
}

static int gulp(void) {
    size_t size = 100 << 20;
    char *volatile all = malloc(size);
    int fd = open("/workspace/large", O_RDONLY);
    if (!all || fd < 0) return 1;
    ssize_t n = read(fd, all, size);
    printf("%s\n", n > 0 ? "read" : strerror(errno));
    int out = open("/workspace/copy", O_WRONLY | O_CREAT, 0666);
    n = write(out, all, size);
    printf("%s\n", n > 0 ? "written" : strerror(errno));
    return 0;
}

static int deep(int n) {
    volatile char here[256];
    here[n % 256] = (char)n;
    return deep(n + 1) + here[(n + 1) % 256];
}

static int flood(void) {
    char line[1024];
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = 0;
    for (int i = 0; i < 10000; i++) puts(line);
    return 0;
}

static int listed(void) {
    struct timespec now;
    struct stat st;
    unsigned char random[16];
    FILE *f = fopen("/workspace/made", "w");
    fputs("x", f);
    fclose(f);
    clock_gettime(CLOCK_REALTIME, &now);
    printf("real %lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("monotonic %lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    if (getentropy(random, sizeof random)) return 1;
    for (size_t i = 0; i < sizeof random; i++) printf("%02x", random[i]);
    stat("/workspace/made", &st);
    printf("\nfile %lld bytes, inode %llu, changed %lld\n", (long long)st.st_size, (unsigned long long)st.st_ino,
           (long long)st.st_mtim.tv_sec);
    DIR *d = opendir("/workspace");
    struct dirent *e;
    while ((e = readdir(d))) printf("entry %s %llu\n", e->d_name, (unsigned long long)e->d_ino);
    closedir(d);
    return 0;
}

static int notice(void) {
    char text[128] = {0};
    puts("waiting");
    fflush(stdout);
    for (;;) {
        FILE *f = fopen("/run/souk/notice.json", "r");
        if (f && fgets(text, sizeof text, f)) {
            puts(text);
            return 0;
        }
        if (f) fclose(f);
        usleep(10000);
    }
}

static int drip(void) {
    for (int i = 0;; i++) {
        printf("%d\n", i);
        fflush(stdout);
        usleep(10000);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
#define IS(name) (!strcmp(what, name))
    if (IS("say")) return say(argc, argv);
    if (IS("files")) return files();
    if (IS("escape")) return escape();
    if (IS("memory")) return memory();
    if (IS("many")) return many();
    if (IS("fill")) return fill();
    if (IS("flood")) return flood();
    if (IS("list")) return listed();
    if (IS("notice")) return notice();
    if (IS("drip")) return drip();
    if (IS("gulp")) return gulp();
    if (IS("deep")) return deep(0);
    if (IS("trap")) __builtin_trap();
    if (IS("sleep")) { sleep(3600); return 0; }
    if (IS("spin")) for (volatile unsigned long i = 0;; i++) {}
    return 99;
}
