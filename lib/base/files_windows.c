/* files_windows.c - files by the Windows API, behind the C library's descriptors and errno.
 *
 * Paths come as UTF-8 and go to the system as UTF-16; long ones get the prefix that lifts the limit of 260 characters.
 * Every file is opened so that others may read, write, replace and delete it meanwhile, as on POSIX. What stays different:
 * a file that is mapped (here or in another process) can be neither replaced nor shortened, and a folder cannot be synced
 * (MOVEFILE_WRITE_THROUGH waits for the disk instead).
 *
 * Left out: access rights, which the new file takes from its folder; links, which only administrators make there. */
#include "base/system.h"

#if defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <psapi.h>

enum {
    FILES_PATH = 4096,   /* UTF-16 units of a path, with its NUL */
    FILES_SHORT = 240,   /* longer ones get the prefix: 260 is the limit, 248 for a folder */
    FILES_PAGES = 256,   /* asked about by one QueryWorkingSetEx */
    FILES_TRIES = 10,    /* to rename, while a virus scanner or an indexer holds one of the two files */
};

static int files_errno(DWORD error) {
    switch (error) {
        case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND: case ERROR_BAD_NETPATH: case ERROR_INVALID_DRIVE: return ENOENT;
        case ERROR_ACCESS_DENIED: case ERROR_PRIVILEGE_NOT_HELD: return EACCES;
        case ERROR_SHARING_VIOLATION: case ERROR_LOCK_VIOLATION: case ERROR_USER_MAPPED_FILE: case ERROR_BUSY: return EBUSY;
        case ERROR_FILE_EXISTS: case ERROR_ALREADY_EXISTS: return EEXIST;
        case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL: return ENOSPC;
        case ERROR_NOT_ENOUGH_MEMORY: case ERROR_OUTOFMEMORY: case ERROR_COMMITMENT_LIMIT: return ENOMEM;
        case ERROR_FILENAME_EXCED_RANGE: case ERROR_BUFFER_OVERFLOW: return ENAMETOOLONG;
        case ERROR_TOO_MANY_OPEN_FILES: return EMFILE;
        case ERROR_WRITE_PROTECT: return EROFS;
        case ERROR_DIR_NOT_EMPTY: return ENOTEMPTY;
        case ERROR_DIRECTORY: return ENOTDIR;
        case ERROR_INVALID_NAME: case ERROR_BAD_PATHNAME: case ERROR_INVALID_PARAMETER: return EINVAL;
        default: return EIO;
    }
}

/* Sets errno from the system's last error; for `return files_failed();`. */
static int files_failed(void) {
    errno = files_errno(GetLastError());
    return -1;
}

/* ---- by path -------------------------------------------------------------------------------------------------- */

bool peft__sys_is_separator(char c) {
    return c == '/' || c == '\\';
}

/* A long path in the form that has no limit: absolute, with backslashes, after "\\?\" (a share: after "\\?\UNC\"). */
static bool files_long_path(WCHAR path[FILES_PATH]) {
    static const WCHAR plain[] = L"\\\\?\\", share[] = L"\\\\?\\UNC\\";
    WCHAR whole[FILES_PATH];
    DWORD n = GetFullPathNameW(path, FILES_PATH, whole, NULL);
    bool unc = whole[0] == L'\\' && whole[1] == L'\\';
    size_t head = unc ? 8 : 4, skip = unc ? 2 : 0;
    if (n == 0 || n + head >= FILES_PATH) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(path, unc ? share : plain, head * sizeof *path);
    memcpy(path + head, whole + skip, (n - skip + 1) * sizeof *path);
    return true;
}

static bool files_path(const char *path, WCHAR out[FILES_PATH]) {
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, FILES_PATH);
    if (n == 0) {
        errno = GetLastError() == ERROR_INSUFFICIENT_BUFFER ? ENAMETOOLONG : EINVAL;
        return false;
    }
    return n <= FILES_SHORT || wcsncmp(out, L"\\\\?\\", 4) == 0 || files_long_path(out);
}

bool peft__sys_stat(const char *path, peft__sys_info *out) {
    WCHAR wide[FILES_PATH];
    WIN32_FILE_ATTRIBUTE_DATA info;
    if (!files_path(path, wide)) { return false; }
    if (!GetFileAttributesExW(wide, GetFileExInfoStandard, &info)) { return files_failed() == 0; }
    *out = (peft__sys_info){.size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow};
    out->kind = info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? PEFT__SYS_FOLDER
                : info.dwFileAttributes & FILE_ATTRIBUTE_DEVICE  ? PEFT__SYS_OTHER
                                                                 : PEFT__SYS_FILE;
    return true;
}

int peft__sys_make_folder(const char *path) {
    WCHAR wide[FILES_PATH];
    if (!files_path(path, wide)) { return -1; }
    return CreateDirectoryW(wide, NULL) ? 0 : files_failed();
}

int peft__sys_remove(const char *path) {
    WCHAR wide[FILES_PATH];
    if (!files_path(path, wide)) { return -1; }
    return DeleteFileW(wide) ? 0 : files_failed();
}

int peft__sys_rename(const char *from, const char *to) {
    WCHAR old_name[FILES_PATH], new_name[FILES_PATH];
    if (!files_path(from, old_name) || !files_path(to, new_name)) { return -1; }
    for (DWORD i = 0; i < FILES_TRIES; i++) {
        if (MoveFileExW(old_name, new_name, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) { return 0; }
        DWORD error = GetLastError();
        if (error != ERROR_ACCESS_DENIED && error != ERROR_SHARING_VIOLATION) { break; }
        if (i + 1 < FILES_TRIES) { Sleep(1U << i); } /* half a second in all */
        SetLastError(error);
    }
    return files_failed();
}

bool peft__sys_read_link(const char *path, char *out, size_t room) {
    (void)path, (void)out, (void)room;
    return false;
}

/* ---- by descriptor -------------------------------------------------------------------------------------------- */

static int files_open(const char *path, DWORD access, DWORD how, int flags) {
    WCHAR wide[FILES_PATH];
    if (!files_path(path, wide)) { return -1; }
    /* BACKUP_SEMANTICS: folders open too, so that file.c can say that it is one. */
    HANDLE h = CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, how,
                           FILE_ATTRIBUTE_NORMAL | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (h == INVALID_HANDLE_VALUE) { return files_failed(); }
    int fd = _open_osfhandle((intptr_t)h, flags | _O_BINARY | _O_NOINHERIT); /* sets errno itself */
    if (fd < 0) { (void)CloseHandle(h); }
    return fd;
}

static HANDLE files_handle(int fd) {
    return (HANDLE)_get_osfhandle(fd);
}

int peft__sys_open(const char *path) {
    return files_open(path, GENERIC_READ, OPEN_EXISTING, _O_RDONLY);
}

int peft__sys_create(const char *path) {
    return files_open(path, GENERIC_WRITE, CREATE_NEW, _O_WRONLY);
}

int peft__sys_open_folder(const char *path) {
    (void)path;
    errno = EINVAL;
    return -1;
}

bool peft__sys_fstat(int fd, peft__sys_info *out) {
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE h = files_handle(fd);
    *out = (peft__sys_info){.kind = PEFT__SYS_OTHER};
    if (GetFileType(h) != FILE_TYPE_DISK) { return true; }
    if (!GetFileInformationByHandle(h, &info)) { return files_failed() == 0; }
    out->kind = info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? PEFT__SYS_FOLDER : PEFT__SYS_FILE;
    out->size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    return true;
}

void peft__sys_set_rights(int fd, uint32_t rights) {
    (void)fd;
    (void)rights;
}

int64_t peft__sys_read(int fd, void *data, size_t size) {
    return _read(fd, data, (unsigned)size);
}

int64_t peft__sys_write(int fd, const void *data, size_t size) {
    return _write(fd, data, (unsigned)size);
}

int peft__sys_sync(int fd) {
    return FlushFileBuffers(files_handle(fd)) ? 0 : files_failed();
}

int peft__sys_close(int fd) {
    return _close(fd);
}

/* ---- mappings ------------------------------------------------------------------------------------------------- */

void *peft__sys_map(int fd, size_t size) {
    (void)size;
    HANDLE mapping = CreateFileMappingW(files_handle(fd), NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping != NULL ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    DWORD error = data != NULL ? 0 : GetLastError();
    if (mapping != NULL) { (void)CloseHandle(mapping); } /* the view keeps what it needs */
    if (data == NULL) { errno = error == ERROR_INVALID_FUNCTION ? ENODEV : files_errno(error); }
    return data;
}

void peft__sys_unmap(void *data, size_t size) {
    (void)size;
    (void)UnmapViewOfFile(data);
}

/* Pages of the working set: those of this process, where POSIX counts what the whole system has in memory. */
size_t peft__sys_resident(const void *data, size_t size) {
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    size_t page = system.dwPageSize, resident = 0;
    char *begin;
    memcpy(&begin, &data, sizeof begin); /* drops const: nothing is written there */
    for (size_t at = 0; at < size; at += page * FILES_PAGES) {
        PSAPI_WORKING_SET_EX_INFORMATION in[FILES_PAGES] = {0};
        size_t span = PEFT__MIN(size - at, page * FILES_PAGES), n = (span + page - 1) / page;
        for (size_t i = 0; i < n; i++) { in[i].VirtualAddress = begin + at + i * page; }
        if (!K32QueryWorkingSetEx(GetCurrentProcess(), in, (DWORD)(n * sizeof *in))) { return 0; }
        for (size_t i = 0; i < n; i++) {
            if (in[i].VirtualAttributes.Valid) { resident += PEFT__MIN(page, span - i * page); }
        }
    }
    return resident;
}

#undef near /* words of ours, which Microsoft's headers take away from what follows in an amalgamation */
#undef far
#endif
