/* Stands in for the fuzzer: feeds every file of the folders given to the fuzz target, so that the kept inputs are
 * tested with any compiler. Prints "ok" with the count, or dies as the target dies, after naming the input. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    long len = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) len = ftell(f);
    uint8_t *data = len >= 0 ? malloc((size_t)len + 1) : NULL; /* + 1: an empty input has an address too */
    if (!data || fseek(f, 0, SEEK_SET) != 0 || fread(data, 1, (size_t)len, f) != (size_t)len) {
        printf("FAILED %s: can't be read\n", path);
        exit(1);
    }
    fclose(f);
    printf("%s\n", path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, (size_t)len);
    free(data);
}

int main(int argc, char **argv)
{
    size_t files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            if (snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name) >= (int)sizeof path) continue;
            replay_file(path);
            files++;
        }
        if (dir) closedir(dir);
    }
    printf("%s inputs replayed: %zu\n", files ? "ok" : "FAILED", files);
    return files == 0;
}
